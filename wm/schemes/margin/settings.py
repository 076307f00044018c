"""The settings of a margin embedding.

The defaults are the recipe of the authors' code for CIFAR-10 and a network that begins untrained. Each comment says
what a field trades.

Source: `matbambbang/margin-based-watermarking` @ 61d01c1, train.py and loaders/cifar10.py.
"""

import math
from dataclasses import dataclass
from typing import Self

from wm.schemes.margin.payload import TRIGGERS_LEAST, TRIGGERS_MAX

LEVELS_MAX = 255
EPOCHS_MAX = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How triggers are trained in.

    Raises:
        ValueError: a setting is out of range, named.
    """

    triggers: int = 100  # n: a perfect match of ten classes has a chance of 10^-100, one of 25 the chance 1.3e-5
    epochs: int = 200
    lr: float = 0.1  # of SGD; a tenth of it after half of the steps, a hundredth after three quarters
    momentum: float = 0.0
    weight_decay: float = 1e-4
    primary_batch: int = 128
    trigger_batch: int = 25  # triggers beside each batch, drawn with replacement
    trigger_weight: float = 0.1  # of a trigger's loss beside a picture's
    ascent_steps: int = 5  # 0 is a plain backdoor: the triggers as they are
    ascent_levels: float = 1.0  # of 255, by which a step moves every value
    shift: int = 4  # pixels, by which the task's own pictures are shifted at most
    mirrored: bool = True  # whether half of them are mirrored; not for pictures of writing

    def __post_init__(self) -> None:
        _check("triggers", TRIGGERS_LEAST <= self.triggers <= TRIGGERS_MAX)
        _check("epochs", 1 <= self.epochs <= EPOCHS_MAX)
        _check("lr", 0 < self.lr < math.inf)
        _check("momentum", 0 <= self.momentum < 1)
        _check("ascent_levels", 0 < self.ascent_levels <= LEVELS_MAX)
        for name in ("weight_decay", "trigger_weight"):
            _check(name, 0 <= getattr(self, name) < math.inf)
        for name in ("primary_batch", "trigger_batch"):
            _check(name, getattr(self, name) >= 1)
        for name in ("ascent_steps", "shift"):
            _check(name, getattr(self, name) >= 0)

    @classmethod
    def quick(cls) -> Self:
        """The measured recipe for small networks and a thousand or two pictures on a CPU.

        What comes of it on the digits, with a perceptron, `python -m bench.schemes margin` measures and docs/schemes.md
        shows: a student of the network's probabilities answers some of the triggers, where a plain backdoor leaves it
        the share of chance; it costs task accuracy; a fine-tuning leaves less of it than of a plain backdoor; and a
        network that was trained before takes fewer of the triggers than one that begins untrained.
        """
        return cls(
            epochs=20,
            lr=0.02,  # at 0.1 a ResNet-18 does not learn them
            momentum=0.9,
            weight_decay=5e-4,
            primary_batch=64,
            trigger_weight=1.0,  # at a tenth, so few epochs do not teach them
            ascent_levels=4.0,  # one level leaves a student with nothing where pictures are few and far apart
            shift=1,
            mirrored=False,
        )


def _check(name: str, holds: bool) -> None:  # noqa: FBT001 (an assertion that raises ValueError)
    if not holds:
        raise ValueError(f"margin setting {name!r} is out of range")
