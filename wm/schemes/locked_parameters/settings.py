"""The settings of a locked embedding. The defaults are the released code's, for a network that is trained from scratch.

Source: Tartaglione et al. 2020; the authors' code at 926cd44.
"""

from dataclasses import dataclass
from typing import Self

from wm.schemes.locked_parameters.payload import COUNT_LEAST, COUNT_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How weights are locked, and how the others are trained around them.

    Raises:
        ValueError: a setting is out of range, named.
    """

    count: int = 600  # n: a chance of 2.2e-23, 75 bits, that 70 % of the signs agree; 0.2 % of a small network
    amplitude: float = 2.0  # of the locked weights, in units of their tensor's root mean square
    replicas: int = 4  # R; 0 is a plain lock, which the training does not know of
    noise: float = 0.2  # of the replicas, in units of each locked weight's own size; the code has 0.01 for all
    sharpening: float = 1e-6  # λ at the first learning rate; it falls with the rate
    direction: int = 1  # 1 lets the loss rise where locked weights move, as the paper means it; -1 is the code's
    epochs: int = 300
    batch: int = 100
    lr: float = 0.1  # of plain gradient descent
    momentum: float = 0.0
    weight_decay: float = 6e-4  # 5e-4 by hand and 1e-4 in the optimiser; of free weights only
    milestones: tuple[int, ...] = (150, 250)  # epochs after which the rate falls to a tenth

    def __post_init__(self) -> None:
        _check("count", COUNT_LEAST <= self.count <= COUNT_MAX)
        _check("amplitude", 0 < self.amplitude <= 100)
        _check("replicas", 0 <= self.replicas <= 64)
        _check("direction", self.direction in {-1, 1})
        _check("momentum", 0 <= self.momentum < 1)
        _check("milestones", all(it >= 1 for it in self.milestones))
        for name in ("epochs", "batch"):
            _check(name, getattr(self, name) >= 1)
        for name in ("noise", "lr"):
            _check(name, getattr(self, name) > 0)
        for name in ("sharpening", "weight_decay"):
            _check(name, getattr(self, name) >= 0)

    @classmethod
    def quick(cls) -> Self:
        """A measured recipe for a trained network and a CPU.

        The watermark-aware step takes most of the first step back, since a replica's gradient is nearly the model's:
        the task is learned at lr - sharpening, and what is left of the replicas is the rise of the curvature.
        """
        return cls(replicas=2, noise=0.3, sharpening=0.1, epochs=8, batch=64, lr=0.15, milestones=(6,))


def _check(name: str, holds: bool) -> None:  # noqa: FBT001 (an assertion that raises ValueError)
    if not holds:
        raise ValueError(f"locking setting {name!r} is out of range")
