"""The settings of an MTLSign embedding.

The defaults embed into a ResNet-18 on two CPU cores in about a minute and survive a fine-tuning that keeps the task
accuracy, and a second embedding after it. Each comment says what a field trades.

Source: Li et al. 2022, section 3.2; SCHEMES 1.1-C lists where the authors' code differs.
"""

from dataclasses import dataclass
from typing import Literal

from wm.head import HIDDEN_WIDTH
from wm.info import POOLING_MAX, TRIGGERS_LEAST, is_gamma
from wm.triggers.prg import COUNT_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedSettings:
    """How stage 2 embeds.

    Raises:
        ValueError: a setting is out of range, named.
    """

    triggers: int = 600  # N: 2.2e-23 at gamma; the authors' code uses 200, which can be ground
    gamma: str = "0.7"  # the fraction that must match, a decimal string since it is hashed
    taps: tuple[str, ...] | None = None  # module paths; None takes the architecture's default
    pooling: int = 4  # cells per side and channel: finer survives a stronger tuning, at a larger head
    hidden: int = HIDDEN_WIDTH
    tuning_regularizer: Literal["none", "head"] = "head"  # R_DA: off, or as in the authors' code on the head alone
    lambda1: float = 0.1  # of ||W - W0||^2 over the tapped prefix
    lambda2: float = 1.0  # of R_DA, as a mean; the paper's grid is for a sum
    primary_weight: float = 1.0  # 0 is the paper's loss, which costs task accuracy
    steps: int = 60  # joint steps of backbone and head
    trigger_batch: int = 100
    primary_batch: int = 64
    backbone_lr: float = 3e-5  # both rates fall to zero along a cosine
    head_lr: float = 1e-3
    shadows: int = 4  # tuned copies that R_DA looks at, every other one overwritten as well
    shadow_steps: int = 16
    shadow_lr: float = 3e-4  # the strongest of the rates at which shadows are tuned
    tuning_fraction: float = 0.1  # of the training set, as D'_primary
    head_steps: int = 400  # steps of the head alone, at the end, on the cached features
    feature_noise: float = 0.3  # added to the features in training, in units of their tap's deviation

    def __post_init__(self) -> None:
        _check("triggers", TRIGGERS_LEAST <= self.triggers <= COUNT_MAX)
        _check("gamma", is_gamma(self.gamma))
        _check("pooling", 1 <= self.pooling <= POOLING_MAX)
        _check("tuning_regularizer", self.tuning_regularizer in {"none", "head"})
        _check("tuning_fraction", 0 < self.tuning_fraction <= 1)
        for name in ("hidden", "steps", "trigger_batch", "primary_batch", "shadow_steps"):
            _check(name, getattr(self, name) >= 1)
        for name in ("backbone_lr", "head_lr", "shadow_lr"):
            _check(name, getattr(self, name) > 0)
        for name in ("lambda1", "lambda2", "primary_weight", "shadows", "head_steps", "feature_noise"):
            _check(name, getattr(self, name) >= 0)


def _check(name: str, holds: bool) -> None:  # noqa: FBT001 (an assertion that raises ValueError)
    if not holds:
        raise ValueError(f"embedding setting {name!r} is out of range")
