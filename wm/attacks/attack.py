"""The vocabulary of the attacks: what a thief holds, what he does to it, and how hard.

An attack is data and one function. It is handed a copy, so it may change the model in place or return another one; it
draws every random number from the seed; how hard it goes is one number, its strength, on a scale of its own.

Source: Lukas et al., "SoK: How Robust is Image Classification Deep Neural Network Watermarking?", 2022, for the names
of the removal attacks; Li et al. 2022, section 4.3, for those of MTLSign.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from wm.architectures import Architecture
from wm.branch import Branch
from wm.data import Dataset
from wm.errors import WatermarkError
from wm.progress import ProgressCallback
from wm.scenes import Scenes
from wm.taps import taps_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What an attack's strength means.

    Attributes:
        unit: what is counted, such as "share of weights set to 0".
        weakest, strongest: the ends of the range; where more is gentler, as with bits, weakest is the greater.
        usual: the strengths of a sweep, from weak to strong.
        is_whole: whether only whole numbers make sense.
    """

    unit: str
    weakest: float
    strongest: float
    usual: tuple[float, ...]
    is_whole: bool = False

    def __post_init__(self) -> None:
        for strength in self.usual:
            self.check(strength)
        if list(self.usual) != sorted(self.usual, reverse=self.weakest > self.strongest):
            raise ValueError("the usual strengths must go from weak to strong")

    def check(self, strength: float) -> None:
        """Raise unless the strength is on the scale.

        Raises:
            ValueError: it is not, naming the range.
        """
        least, most = sorted((self.weakest, self.strongest))
        if not math.isfinite(strength) or not least <= strength <= most:
            raise ValueError(f"strength {strength:g} is not in [{least:g}, {most:g}] ({self.unit})")
        if self.is_whole and strength != int(strength):
            raise ValueError(f"strength {strength:g} is not a whole number ({self.unit})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stolen:
    """What an attacker begins with.

    Attributes:
        model: the marked model, in evaluation mode.
        architecture: what it was built from; he can read that off the weights.
        data: the primary task; its training set is what he has of it.
        revealed: the owner's head, info and triggers, which a claim makes public; None before it.
    """

    model: nn.Module
    architecture: Architecture
    data: Dataset
    revealed: Branch | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """Where he lets a head of his own read: as the owner does, once that is known; before, at the usual places.

        Raises:
            WatermarkError: `unknown_architecture`, nothing was revealed, and this architecture has no usual places.
        """
        if self.revealed is not None:
            return self.revealed.info.modules
        try:
            return taps_for(self.architecture, self.data.input)
        except WatermarkError as error:
            message = (
                f"no default taps for {self.architecture.name!r}, and no claim has shown where the owner reads: "
                "give Stolen(revealed=wm.branch.Branch(...)) with his head, info and triggers"
            )
            raise WatermarkError(error.code, message) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One way to change a model so that its mark is no longer found.

    Attributes:
        name: as the command and the reports call it.
        summary: one line for people.
        scale: what its strength means.
        run: takes what was stolen (a copy, its to change), a strength on the scale, a seed and a progress callback, and
            returns the attacked model.
        preserves_function: whether the attacked model computes what the stolen one did.
        needs_classes: whether it is for networks that answer with one class; others find objects with their masks.
    """

    name: str
    summary: str
    scale: Scale
    run: Callable[[Stolen, float, int, ProgressCallback], nn.Module]
    preserves_function: bool = False
    needs_classes: bool = False

    def check(self, data: Dataset) -> None:
        """Raise unless the attack can be done with such data.

        Raises:
            WatermarkError: `unknown_architecture`, they are pictures with objects.
        """
        if isinstance(data.train, Scenes) and self.needs_classes:
            message = (
                f"{self.name} is for networks that answer with one class; it cannot attack those that find objects"
            )
            raise WatermarkError("unknown_architecture", message)
