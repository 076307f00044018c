"""The settings of a frontier stitching.

The defaults are the paper's: 100 adversaries at a quarter of the pixels' range, half of them true, and fine-tuning that
stops as soon as the network answers all of them with the original class.

Source: Le Merrer, Pérez, Trédan 2020, as SCHEMES 1.4 has it; the limit on the passes is WRT's.
"""

from dataclasses import dataclass
from typing import Self

TRIGGERS_LEAST, TRIGGERS_MAX = 20, 1024
EPSILON_LEVELS_MAX = 127  # half the range: beyond it a picture may become its negative


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a key set is chosen and stitched.

    Raises:
        ValueError: a setting is out of range, named.
    """

    triggers: int = 100  # |K|
    epsilon_levels: int = 64  # how far each pixel is moved, of 255: the paper's 0.25
    true_fraction: float = 0.5  # of the key set, as true adversaries; at 1 there are no false ones
    lr: float = 1e-3  # Adam's, constant, since nobody knows beforehand when it will stop
    trigger_batch: int = 25
    primary_batch: int = 64  # examples of the task in every step
    primary_weight: float = 1.0  # of the task's own loss; at 0 the key set is all that is trained on
    passes_max: int = 60  # over the key set
    passes_after: int = 0  # passes that follow the first one after which all are matched: the paper stops at once

    def __post_init__(self) -> None:
        _check("triggers", TRIGGERS_LEAST <= self.triggers <= TRIGGERS_MAX)
        _check("epsilon_levels", 1 <= self.epsilon_levels <= EPSILON_LEVELS_MAX)
        _check("true_fraction", 0 <= self.true_fraction <= 1)
        _check("lr", 0 < self.lr <= 1)
        _check("primary_weight", 0 <= self.primary_weight < float("inf"))
        for name in ("trigger_batch", "primary_batch", "passes_max"):
            _check(name, getattr(self, name) >= 1)
        _check("passes_after", self.passes_after >= 0)

    @classmethod
    def quick(cls) -> Self:
        """The measured recipe for small networks on a CPU."""
        return cls(epsilon_levels=96, true_fraction=1.0, passes_after=10)

    @property
    def true_adversaries(self) -> int:
        """How many of the key set are to be true adversaries."""
        return round(self.true_fraction * self.triggers)


def _check(name: str, holds: bool) -> None:  # noqa: FBT001 (an assertion that raises ValueError)
    if not holds:
        raise ValueError(f"frontier stitching setting {name!r} is out of range")
