"""The settings of a fragile watermark. Each comment says what a field trades.

Source: Yin et al. 2022 and their code, for the generator and its loss; the margins and what polishes them are ours.
"""

from dataclasses import dataclass
from typing import Literal, Self, get_args

from wm.schemes.fragile.payload import TRIGGERS_LEAST
from wm.triggers.prg import COUNT_MAX

Boundary = Literal["uniform", "pair"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How triggers are made; the defaults are the paper's generator and loss.

    Raises:
        ValueError: a setting is out of range, named.
    """

    triggers: int = 100  # more are more sensitive, and a larger file
    boundary: Boundary = "uniform"  # which classes tie with the label: all of them, as in the paper, or the nearest
    latent: int = 512  # numbers that the generator makes a trigger of
    width: int = 512  # of the generator's first convolutions; those near the full size are narrower
    variance_weight: float = 150.0  # of the variance of the posteriors, against the cross-entropy
    iterations: int = 300  # at most: it stops when all labels match
    lr: float = 1e-4  # Adam's
    beta1: float = 0.5
    beta2: float = 0.999
    batch: int = 50  # triggers in memory at once; the result does not depend on it but for the last digits
    tolerates_tf32: bool = True  # as GPUs compute convolutions by default; without it margins are finer, for fp32 alone
    margin_least: float = 10.0  # of every trigger, in units of the numeric noise, as numerics weighs it
    margin_most: float = 15.0  # likewise; less is more sensitive and harder to reach
    polishing_rounds: int = 40  # in each of which a trigger moves by single levels of pixels
    attempts: int = 10  # how often noise is measured, and triggers that were left behind are begun anew

    def __post_init__(self) -> None:
        _check("triggers", TRIGGERS_LEAST <= self.triggers <= COUNT_MAX)
        _check("boundary", self.boundary in get_args(Boundary))
        _check("margin_least", self.margin_least >= 1)
        _check("margin_most", 1.2 * self.margin_least <= self.margin_most <= 100 * self.margin_least)
        _check("lr", self.lr > 0)
        _check("variance_weight", self.variance_weight >= 0)
        for name in ("beta1", "beta2"):
            _check(name, 0 <= getattr(self, name) < 1)
        for name, most in (("latent", 4096), ("width", 1024), ("batch", COUNT_MAX), ("polishing_rounds", 1000)):
            _check(name, 1 <= getattr(self, name) <= most)
        for name, most in (("iterations", 10_000), ("attempts", 100)):
            _check(name, 1 <= getattr(self, name) <= most)

    @classmethod
    def quick(cls) -> Self:
        """A recipe for two CPU cores: a narrow generator, a greater rate, fewer iterations; polishing does the rest.

        Measured by bench.schemes: all 100 triggers in the band, in two to four attempts of the ten.
        """
        return cls(width=32, lr=3e-3, iterations=40)


def _check(name: str, holds: bool) -> None:  # noqa: FBT001 (an assertion that raises ValueError)
    if not holds:
        raise ValueError(f"fragile setting {name!r} is out of range")
