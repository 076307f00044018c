"""What the evidence of a fragile watermark holds: the triggers as 8-bit pixels, and how near the boundary they are.

Labels are not in it: they come from the watermark key. The margins' numbers are what the owner says of them; whoever
holds the untouched model measures them himself (`examination`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from wm.errors import WatermarkError
from wm.schemes.fragile.drawing import draw_labels
from wm.schemes.scheme import ClassTriggers, check_fields, check_tensors, integer_field
from wm.triggers import InputSpec
from wm.triggers.prg import COUNT_MAX

PIXEL_BYTES_MAX = 16 << 20  # 100 triggers of 3 x 224 x 224, and what fits an evidence file
TRIGGERS_LEAST = 20  # so many labels of two classes another model gives once in a million
_FIELDS = frozenset({"triggers", "tolerates_tf32", "margin_least", "margin_most"})
_DECIMAL = re.compile(r"[1-9]\.[0-9]{3}e[+-][0-9]{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FragilePayload:
    """The triggers, without their labels.

    Attributes:
        pixels: uint8, shape (n, channels, height, width).
        classes: of the network, at least 2.
        tolerates_tf32: whether the margins are made for devices that compute with TF32 as well; without it they hold
            where products are computed in single precision.
        margin_least, margin_most: of the logits, as measured on the untouched model; decimal strings such as 1.250e-02.
    """

    pixels: Tensor
    classes: int
    tolerates_tf32: bool
    margin_least: str
    margin_most: str

    @property
    def total(self) -> int:
        """How many answers are counted."""
        return len(self.pixels)

    @property
    def chance(self) -> Fraction | None:
        """None: pictures are made for the labels, and other models of the task may see in them what this one sees.

        The verdict needs none: it asks for all answers.
        """
        return None

    def tensors(self) -> dict[str, Tensor]:
        """Return the pixels by name."""
        return {"pixels": self.pixels}

    def fields(self) -> dict[str, int | str]:
        """Return the scheme's own part of the info."""
        return {
            "triggers": self.total,
            "tolerates_tf32": int(self.tolerates_tf32),
            "margin_least": self.margin_least,
            "margin_most": self.margin_most,
        }


def payload_from(
    fields: Mapping[str, Any], tensors: Mapping[str, Tensor], *, spec: InputSpec, classes: int
) -> FragilePayload:
    """Read what may come from anybody.

    Args:
        fields: the scheme's own part of the info.
        tensors: of the evidence file.
        spec: what the network takes.
        classes: that it tells apart, at least 2.

    Raises:
        WatermarkError: `malformed`, or `too_large` for the pixels, naming the field or tensor.
    """
    check_fields(fields, _FIELDS)
    count = integer_field(fields, "triggers", TRIGGERS_LEAST, COUNT_MAX)
    tolerates_tf32 = bool(integer_field(fields, "tolerates_tf32", 0, 1))
    least, most = (_decimal_field(fields, name) for name in ("margin_least", "margin_most"))
    if float(least) > float(most):
        raise WatermarkError("malformed", "info field 'payload.margin_least' is above 'payload.margin_most'")
    check_size(spec, triggers=count)
    check_tensors(tensors, {"pixels": (torch.uint8, (count, spec.channels, spec.height, spec.width))})
    return FragilePayload(
        pixels=tensors["pixels"].contiguous(),
        classes=classes,
        tolerates_tf32=tolerates_tf32,
        margin_least=least,
        margin_most=most,
    )


def class_triggers(payload: FragilePayload, watermark_key: bytes) -> ClassTriggers:
    """Return the triggers with the labels that the key draws.

    Raises:
        ValueError: the key's length.
    """
    return ClassTriggers(payload.pixels, draw_labels(watermark_key, count=payload.total, classes=payload.classes))


def check_size(spec: InputSpec, *, triggers: int) -> None:
    """Check that the triggers fit an evidence file.

    Raises:
        WatermarkError: `too_large`.
    """
    size_bytes = triggers * spec.channels * spec.height * spec.width
    if size_bytes > PIXEL_BYTES_MAX:
        raise WatermarkError(
            "too_large",
            f"{triggers} triggers of {spec} have {size_bytes} bytes, the limit is {PIXEL_BYTES_MAX}; take fewer",
        )


def decimal(value: float) -> str:
    """Spell a positive number in the one way that a payload may."""
    return f"{value:.3e}"


def _decimal_field(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value):
        raise WatermarkError("malformed", f"info field 'payload.{name}' must be a decimal string such as '1.250e-02'")
    return value
