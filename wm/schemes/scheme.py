"""What every scheme gives: a marked model, a payload for the evidence file, and which of its answers the key demands.

MTLSign came first and has more to it (taps, a head, alignment); the others fit into the few shapes of this module.

Source: DESIGN 6.1; SCHEMES 5, "Interface".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wm.backbone import device_of, evaluating
from wm.errors import WatermarkError
from wm.pixels import from_pixels
from wm.triggers import InputSpec

TRIGGERS_AT_ONCE = 64


class Payload(Protocol):
    """What the evidence file holds of a scheme, beside what all evidence files hold."""

    @property
    def total(self) -> int:
        """How many answers are counted."""

    @property
    def chance(self) -> Fraction | None:
        """Probability that a model matches one of them which has nothing to do with the key.

        None where no exact one exists: it is measured on null models.
        """

    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the evidence file, contiguous and on the CPU, by name."""

    def fields(self) -> dict[str, int | str]:
        """The scheme's own part of the info: integers, and text, in which decimals are spelled."""


@dataclass(frozen=True, slots=True)
class Marked:
    """What a scheme's embedding gives.

    Attributes:
        model: the marked copy, in evaluation mode.
        payload: for the evidence file; secret until a claim.
        report: JSON-able: seconds, task accuracies before and after, counts, and the history of the embedding.
    """

    model: nn.Module
    payload: Payload
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ClassTriggers:
    """Triggers of a black-box scheme: pictures, and the class that the key demands of each.

    Attributes:
        pixels: uint8, shape (n, channels, height, width).
        labels: int64, shape (n,).
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@torch.no_grad()
def answers(model: nn.Module, pixels: Tensor, spec: InputSpec) -> Tensor:
    """Return the classes that a network gives pictures.

    They are shown in evaluation mode, in a fixed order and in batches of a fixed size, so that one machine gives one
    answer; the mode is restored.

    Args:
        model: a classifier on any device.
        pixels: uint8, shape (n, channels, height, width).
        spec: what it takes.

    Returns:
        int64, shape (n,), on the CPU; of equal logits the first class.

    Raises:
        WatermarkError: `malformed`, a logit is not finite, or the network's answer is not of shape (n, classes).
    """
    place, found = device_of(model), []
    with evaluating(model):
        for batch in torch.split(from_pixels(pixels, spec), TRIGGERS_AT_ONCE):
            logits = model(batch.to(place))
            if not isinstance(logits, Tensor) or logits.ndim != 2:
                raise WatermarkError("malformed", "the network does not answer with a row of logits for each picture")
            if not bool(torch.isfinite(logits).all()):
                raise WatermarkError("malformed", "the network answers with a value that is not finite")
            found.append(logits.argmax(1).cpu())
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)


def matches(model: nn.Module, triggers: ClassTriggers, spec: InputSpec) -> Tensor:
    """Tell which triggers a network answers as the key demands; bool, shape (n,)."""
    return answers(model, triggers.pixels, spec) == triggers.labels


def integer_field(fields: Mapping[str, Any], name: str, least: int, most: int) -> int:
    """Read an integer of the scheme's part of an info.

    Raises:
        WatermarkError: `malformed`, naming the field and its range.
    """
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise WatermarkError("malformed", f"info field 'payload.{name}' must be an integer in [{least}, {most}]")
    return value


def check_fields(fields: Mapping[str, Any], names: frozenset[str]) -> None:
    """Check that the scheme's part of an info has exactly these names.

    Raises:
        WatermarkError: `malformed`.
    """
    if set(fields) != names:
        raise WatermarkError(
            "malformed", f"info field 'payload' must be an object with exactly the keys {sorted(names)}"
        )


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
    """Check that an evidence file has exactly these tensors, with these types and shapes, and finite values.

    Raises:
        WatermarkError: `malformed`, naming the tensor.
    """
    if set(tensors) != set(expected):
        raise WatermarkError("malformed", f"the evidence must hold exactly the tensors {sorted(expected)}")
    for name, (dtype, shape) in expected.items():
        tensor = tensors[name]
        if tensor.dtype != dtype or tuple(tensor.shape) != shape:
            raise WatermarkError(
                "malformed",
                f"tensor {name!r} must be {dtype} of shape {shape}, not {tensor.dtype} of shape {tuple(tensor.shape)}",
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WatermarkError("malformed", f"tensor {name!r} holds a value that is not finite")
