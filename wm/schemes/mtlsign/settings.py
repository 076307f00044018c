"""The settings of an MTLSign embedding.

The defaults embed into a ResNet-18 on two CPU cores in about a minute and survive a fine-tuning that keeps the task
accuracy, and a second embedding after it. Each comment says what a field trades.

Source: Li et al. 2022, section 3.2; SCHEMES 1.1-C lists where the authors' code differs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Literal, Self, get_args

from wm.backbone import Precision
from wm.data import Examples
from wm.head import HIDDEN_WIDTH
from wm.info import POOLING_MAX, TRIGGERS_LEAST, is_gamma
from wm.scenes import EMBEDDING_PICTURES, Scenes
from wm.triggers.prg import COUNT_MAX

Regularizer = Literal["none", "head", "fomaml", "delta"]
Reduction = Literal["mean", "sum"]

# The settings that are whole numbers, and those that are finite ones.
_COUNTS = (
    *("triggers", "pooling", "hidden", "siblings", "align_every", "fresh_negatives", "steps", "trigger_batch"),
    *("primary_batch", "shadows", "shadow_steps", "head_steps"),
)
_AMOUNTS = (
    *("lambda1", "lambda2", "primary_weight", "negative_weight", "backbone_lr", "head_lr", "shadow_lr"),
    *("tuning_fraction", "feature_noise"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedSettings:
    """How stage 2 embeds.

    Raises:
        ValueError: a setting is out of range, named.
    """

    triggers: int = 600  # N: 2.2e-23 at gamma; the authors' code uses 200, which can be ground
    gamma: str = "0.7"  # the fraction that must match, a decimal string since it is hashed
    taps: tuple[str, ...] | None = None  # module paths; None leaves it to `wm.taps.taps_for`
    pooling: int = 4  # cells per side and channel: finer survives a stronger tuning, at a larger head
    hidden: int = HIDDEN_WIDTH
    # Whether verification takes back the mean move of a suspect's answers, tuning's largest; None for where there are
    # no negative controls, since it is most of what sets a model apart from them as well, and fresh networks stay at
    # chance with it.
    centred: bool | None = None
    tuning_regularizer: Regularizer = "head"  # R_DA: off, or whom it teaches; see the module of that name
    reduction: Reduction = "mean"  # of the cross-entropies over the triggers; the paper sums over all N
    lambda1: float = 0.1  # of ||W - W0||^2 over the tapped prefix; 1 / theta: a large one is covert, a small one quick
    lambda2: float = 1.0  # of R_DA; the paper's grid 0.02 ... 0.2 is for a sum, so in the `sum` form
    primary_weight: float = 1.0  # 0 is the paper's loss, which costs task accuracy
    negative_weight: float = 1.0  # of the negative controls, where there are any: networks that must answer by chance
    siblings: int = 2  # tuned copies of each negative control, as negative controls too: a base's honest users
    align_every: int = (
        5  # joint steps from one alignment of the negative controls to the next; 0 leaves them as they are
    )
    fresh_negatives: int = 2  # freshly initialised networks among the negative controls, where there are any
    steps: int = 60  # joint steps of backbone and head
    trigger_batch: int = 100
    primary_batch: int = 64
    precision: Precision = "float32"  # of forward and backward: bfloat16 is faster on a GPU; counts are in float32
    backbone_lr: float = 3e-5  # both rates fall to zero along a cosine
    scaled_lr: bool = False  # backbone_lr is in units of a typical weight, so that no network's are moved too little
    head_lr: float = 1e-3
    shadows: int = 2  # tuned copies that R_DA looks at, every other one overwritten as well
    shadow_steps: int = 40
    shadow_lr: float = 1e-3  # the strongest of the rates at which shadows are tuned
    tuning_fraction: float = 0.1  # of the training set, as D'_primary
    head_steps: int = 400  # steps of the head alone, at the end, on the cached features
    feature_noise: float = 1.5  # added to the features in training, in units of their tap's deviation

    def __post_init__(self) -> None:
        for name in _COUNTS:
            _check(name, type(getattr(self, name)) is int)
        for name in _AMOUNTS:
            _check(name, _is_finite(getattr(self, name)))
        _check("triggers", TRIGGERS_LEAST <= self.triggers <= COUNT_MAX)
        _check("gamma", isinstance(self.gamma, str) and is_gamma(self.gamma))
        _check("taps", self.taps is None or _are_paths(self.taps))
        _check("pooling", 1 <= self.pooling <= POOLING_MAX)
        _check("tuning_regularizer", self.tuning_regularizer in get_args(Regularizer))
        _check("reduction", self.reduction in get_args(Reduction))
        _check("precision", self.precision in get_args(Precision))
        _check("tuning_fraction", 0 < self.tuning_fraction <= 1)
        for name in ("hidden", "steps", "trigger_batch", "primary_batch", "shadow_steps"):
            _check(name, getattr(self, name) >= 1)
        for name in ("backbone_lr", "head_lr", "shadow_lr"):
            _check(name, getattr(self, name) > 0)
        for name in ("lambda1", "lambda2", "primary_weight", "shadows", "head_steps", "feature_noise"):
            _check(name, getattr(self, name) >= 0)
        for name in ("negative_weight", "siblings", "align_every", "fresh_negatives"):
            _check(name, getattr(self, name) >= 0)

    @classmethod
    def beside_a_base(cls) -> Self:
        """The measured recipe where a public base must be kept out: the backbone has to move away from it.

        Nothing is centred: the mean move is most of what sets the marked model apart from its base. docs/attacks.md
        tells what all that costs. How far it has to move goes by the size of its weights: a ShuffleNet's are some three
        times a ResNet-18's.
        """
        return cls(
            centred=False,
            backbone_lr=2.4e-3,
            scaled_lr=True,
            lambda1=0.01,
            steps=30,
            head_steps=700,
            shadows=2,
            shadow_steps=8,
            shadow_lr=3e-4,
            feature_noise=0.3,
            siblings=1,
            fresh_negatives=1,
        )

    @classmethod
    def usual(cls, tuning: Examples | Callable[..., object] | None, *, has_base: bool) -> Self:
        """The measured recipe for a task and, beside a public base, for keeping that out.

        Args:
            tuning: examples of the task, or what stands for them; a batch of whole pictures with objects is smaller
                than one of labelled pictures.
            has_base: whether there are negative controls.
        """
        settings = cls.beside_a_base() if has_base else cls()
        return replace(settings, primary_batch=EMBEDDING_PICTURES) if isinstance(tuning, Scenes) else settings

    @classmethod
    def paper(cls) -> Self:
        """The loss as the paper prints it: sums over the triggers, no primary term, R_DA through the tuned weights.

        Both weights are in the middle of the paper's grid. It costs task accuracy; for comparisons, not for owners.

        Source: Li et al. 2022, equations 7 to 10 and section 4.2.
        """
        return cls(tuning_regularizer="fomaml", reduction="sum", lambda1=0.1, lambda2=0.1, primary_weight=0.0)


def _is_finite(value: object) -> bool:
    return type(value) is not bool and isinstance(value, Real) and math.isfinite(value)


def _are_paths(value: object) -> bool:
    """Whether it is a row of module paths; a single string would be read letter by letter."""
    return isinstance(value, tuple | list) and bool(value) and all(isinstance(it, str) and it for it in value)


def _check(name: str, holds: bool) -> None:  # noqa: FBT001 (an assertion that raises ValueError)
    if not holds:
        raise ValueError(f"embedding setting {name!r} is out of range")
