"""What the evidence file holds of a locked mark, and how a suspect is read with it.

    statistic   sign agreement: how many of n weights have the key's sign. Places and signs are the key's, so for a
                model that knows nothing of the key the count is Binomial(n, 1/2), exactly, whatever its weights are.
    beside it   Pearson's r between the weights and the values that were written. It tells an owner how far they moved,
                but is no evidence: the values are his to choose.

A weight of 0 reads as a negative one. Pruned weights are then coin flips, and the count of a stranger stays binomial.

Source: Tartaglione et al. 2020 (read back, correlation); the sign test is ours, since neither paper nor code has a
threshold (SCHEMES 1.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from wm.errors import WatermarkError
from wm.schemes.locked_parameters.places import Places, Shapes, positions, signs
from wm.schemes.scheme import check_fields, check_tensors, integer_field

COUNT_LEAST, COUNT_MAX = 100, 4096
PROBES_LEAST, PROBES_MAX = 32, 256  # of a reference
VALUES, REFERENCE = "locked.values", "locked.reference"


@dataclass(frozen=True, slots=True, eq=False)
class LockedPayload:
    """What was written where.

    Attributes:
        values: the locked weights as they were written, float32, shape (n,), none of them 0.
        shapes: of the tensors that can be locked; they follow from the architecture and stand in no file.
        reference: what suspects are realigned to (`realignment`), float16, shape (probes, channels); None for none.
    """

    values: Tensor
    shapes: Shapes
    reference: Tensor | None = None

    @property
    def total(self) -> int:
        """Number of locked weights."""
        return len(self.values)

    @property
    def chance(self) -> Fraction:
        """One half: the signs are the key's."""
        return Fraction(1, 2)

    def tensors(self) -> dict[str, Tensor]:
        """Return values and reference by name."""
        return {VALUES: self.values} | ({} if self.reference is None else {REFERENCE: self.reference})

    def fields(self) -> dict[str, int | str]:
        """Return the numbers of locked weights and of probes by name."""
        return {"count": self.total, "probes": 0 if self.reference is None else len(self.reference)}


def payload_from(fields: Mapping[str, Any], tensors: Mapping[str, Tensor], *, shapes: Shapes) -> LockedPayload:
    """Rebuild a payload from an evidence file.

    Args:
        fields: the scheme's part of the info.
        tensors: of the evidence file.
        shapes: `lockable` of the architecture's skeleton.

    Raises:
        WatermarkError: `malformed`, naming the field or tensor; `mismatch`, the architecture has too few weights.
    """
    check_fields(fields, frozenset({"count", "probes"}))
    count = integer_field(fields, "count", COUNT_LEAST, COUNT_MAX)
    probes = integer_field(fields, "probes", PROBES_LEAST if fields["probes"] else 0, PROBES_MAX)
    expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {VALUES: (torch.float32, (count,))}
    if probes:
        expected[REFERENCE] = (
            torch.float16,
            (integer_field(fields, "probes", PROBES_LEAST, PROBES_MAX), width(shapes)),
        )
    check_tensors(tensors, expected)
    if not bool(tensors[VALUES].all()):
        raise WatermarkError("malformed", f"tensor {VALUES!r} holds a 0, which has no sign")
    positions(bytes(32), shapes, count)  # whether there are enough is the same for every key
    return LockedPayload(tensors[VALUES], shapes, tensors.get(REFERENCE))


def layers(shapes: Shapes) -> dict[str, int]:
    """Name the convolutional and linear layers with their numbers of channels, in the order of their names."""
    found = [name for name in sorted(shapes) if name.endswith(".weight")]
    return {name.removesuffix(".weight"): shapes[name][0] for name in found}


def width(shapes: Shapes) -> int:
    """Return how many channels a reference tells of."""
    return sum(layers(shapes).values())


def agreements(model: nn.Module, payload: LockedPayload, watermark_key: bytes) -> Tensor:
    """Tell which of a suspect's weights have the sign that the key demands.

    Args:
        model: a network of the architecture in front of its last layer, on any device.
        payload: of the evidence.
        watermark_key: 32 bytes.

    Returns:
        bool, shape (n,), on the CPU.

    Raises:
        WatermarkError: `mismatch`, the network lacks a tensor or has it in another shape.
        WatermarkError: `malformed`, a weight is not finite.
        ValueError: the key's length.
    """
    return agreements_in(model.state_dict(), payload, watermark_key)


def agreements_in(tensors: Mapping[str, Tensor], payload: LockedPayload, watermark_key: bytes) -> Tensor:
    """As `agreements`, for the tensors of a network by name."""
    places = positions(watermark_key, payload.shapes, payload.total)
    return (read(tensors, places) > 0) == signs(watermark_key, payload.total)


def correlation(model: nn.Module, payload: LockedPayload, watermark_key: bytes) -> float:
    """Return Pearson's r between a suspect's weights and the values that were written; 0 where all are alike.

    Raises:
        WatermarkError, ValueError: as of `agreements`.
    """
    found = read(model.state_dict(), positions(watermark_key, payload.shapes, payload.total)).double()
    rows = torch.stack([found - found.mean(), payload.values.double() - payload.values.double().mean()])
    sizes = rows.norm(dim=1)
    return float(rows[0] @ rows[1] / (sizes[0] * sizes[1])) if bool((sizes > 0).all()) else 0.0


def read(tensors: Mapping[str, Tensor], places: Places) -> Tensor:
    """Read the weights at some places.

    Args:
        tensors: a state dict, on any device, in any memory format.
        places: of the key.

    Returns:
        float32, shape (n,), on the CPU.

    Raises:
        WatermarkError: `mismatch`, naming the tensor; `malformed`, a weight is not finite.
    """
    found = torch.zeros(len(places))
    for number, (name, shape) in enumerate(zip(places.names, places.shapes, strict=True)):
        tensor = tensors.get(name)
        if tensor is None or tuple(tensor.shape) != shape:
            has = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}"
            raise WatermarkError("mismatch", f"{name!r} {has}, expected {shape}: the mark is in another architecture")
        chosen, where = places.of(number)
        found[chosen] = tensor.detach().cpu()[where].float()
    if not bool(torch.isfinite(found).all()):
        raise WatermarkError("malformed", "the network has a weight that is not finite")
    return found
