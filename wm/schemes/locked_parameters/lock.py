"""The lock: weights that keep their values while all others are trained.

Source: Tartaglione et al. 2020; the authors' code masks the gradients as well, but then lets the optimiser's weight
decay shrink what it holds locked. Here it is written back after every step, whatever the optimiser does.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wm.errors import WatermarkError
from wm.schemes.locked_parameters.places import Places


class Lock:
    """Holds some weights of a model at their values.

    Args:
        model: its parameters are changed in place.
        places: which.
        values: float32, shape (n,).
    """

    def __init__(self, model: nn.Module, places: Places, values: Tensor) -> None:
        parameters = dict(model.named_parameters())
        self.values = values
        self._parts: list[tuple[nn.Parameter, tuple[Tensor, ...], Tensor]] = []
        for number, name in enumerate(places.names):
            chosen, where = places.of(number)
            parameter = parameters[name]
            self._parts.append((parameter, tuple(it.to(parameter.device) for it in where), chosen))

    @torch.no_grad()
    def write(self, values: Tensor | None = None) -> None:
        """Put the values, or others of the shape (n,) for a while, in their places."""
        written = self.values if values is None else values
        for parameter, where, chosen in self._parts:
            parameter[where] = written[chosen].to(parameter)

    def mask_gradients(self) -> None:
        """Set the locked weights' gradients to 0."""
        for parameter, where, _ in self._parts:
            if parameter.grad is not None:
                parameter.grad[where] = 0


def sizes(tensors: Mapping[str, Tensor], places: Places) -> Tensor:
    """Return for each locked weight the root mean square of its tensor; float32, shape (n,).

    Raises:
        WatermarkError: `mismatch`, a tensor holds nothing but zeros, or something that is not finite.
    """
    squares = [tensors[name].detach().double().square().mean().sqrt().cpu() for name in places.names]
    for name, size in zip(places.names, squares, strict=True):
        if not 0 < float(size) < float("inf"):
            raise WatermarkError("mismatch", f"{name!r} has a root mean square of {float(size)}: train it first")
    return torch.stack(squares)[places.tensor].float()
