"""What the evidence file holds of a margin watermark: the triggers' pixels. Their labels follow from the key."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from wm.errors import WatermarkError
from wm.schemes.margin.draws import labels_for
from wm.schemes.scheme import ClassTriggers, check_fields, check_tensors, integer_field
from wm.triggers import InputSpec

TRIGGERS_LEAST, TRIGGERS_MAX = 20, 1024  # fewer cannot convict anybody of anything where there are two classes
PIXEL_BYTES_MAX = 1 << 24  # 100 colour pictures of 224 x 224 have 15 million; an evidence file has its own limit
_PIXELS, _TRIGGERS = "pixels", "triggers"


@dataclass(frozen=True, slots=True)
class MarginPayload:
    """The triggers of a margin watermark.

    Attributes:
        pixels: uint8, shape (n, channels, height, width), contiguous, on the CPU.
        spec: how a network is shown them; the labels depend on it.
        classes: C, the number of classes that the network tells apart.
    """

    pixels: Tensor
    spec: InputSpec
    classes: int

    @property
    def total(self) -> int:
        """How many triggers there are."""
        return len(self.pixels)

    @property
    def chance(self) -> Fraction:
        """1 / C, exactly: labels are drawn from all classes alike, after the pictures."""
        return Fraction(1, self.classes)

    def tensors(self) -> dict[str, Tensor]:
        """Return the pixels."""
        return {_PIXELS: self.pixels}

    def fields(self) -> dict[str, int | str]:
        """Return how many triggers there are."""
        return {_TRIGGERS: self.total}


def payload_from(
    fields: Mapping[str, Any], tensors: Mapping[str, Tensor], *, spec: InputSpec, classes: int
) -> MarginPayload:
    """Read what an evidence file says, trusting none of it.

    Args:
        fields: the scheme's part of the info.
        tensors: the scheme's tensors.
        spec: what the network takes, as the info says.
        classes: how many classes the network has, as its architecture says.

    Returns:
        The payload.

    Raises:
        WatermarkError: `malformed` for a wrong name, type, shape or range; `too_large` for more pixels than a node
            looks at; each names what is wrong.
    """
    check_fields(fields, frozenset({_TRIGGERS}))
    count = integer_field(fields, _TRIGGERS, TRIGGERS_LEAST, TRIGGERS_MAX)
    check_size(count, spec)
    check_tensors(tensors, {_PIXELS: (torch.uint8, (count, spec.channels, spec.height, spec.width))})
    return MarginPayload(tensors[_PIXELS].cpu().contiguous(), spec, classes)


def check_size(count: int, spec: InputSpec) -> None:
    """Check that so many pictures are not more than an evidence file may hold.

    Raises:
        WatermarkError: `too_large`.
    """
    size_bytes = count * spec.channels * spec.height * spec.width
    if size_bytes > PIXEL_BYTES_MAX:
        raise WatermarkError(
            "too_large",
            f"{count} triggers of {spec} have {size_bytes} bytes, the limit is {PIXEL_BYTES_MAX}; use fewer triggers",
        )


def class_triggers(payload: MarginPayload, watermark_key: bytes) -> ClassTriggers:
    """Return the triggers and what the key demands of them.

    Raises:
        ValueError: the key's length.
    """
    labels = labels_for(watermark_key, payload.pixels, payload.spec, classes=payload.classes)
    return ClassTriggers(payload.pixels, labels)
