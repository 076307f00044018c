"""The key set K as evidence: the original pictures, which way each of their pixels is moved, and the hidden classes.

A trigger is its original with every pixel moved by exactly ε levels, up or down, and kept within 8 bits. Storing the
original and one bit for each pixel instead of the moved picture has three reasons:

* no file can hold a trigger that is further than ε from its original, so nothing has to be checked for that;
* a node sees on the originals whether a null model is an honest classifier of this task: one that is not would answer
  the triggers by chance and make everybody look guilty (`statistic.counted`), and whether the classes that are demanded
  are those that honest networks see;
* it takes little more room than the moved pictures alone, and fits 111 pictures of 224 x 224 into an evidence file.

Two originals that are alike are refused: a picture that is repeated is one question and not two, but the binomial
tail would count it twice (`alike`).

Source: Le Merrer et al. 2020, SCHEMES 1.4. The form of the evidence is ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wm.errors import WatermarkError
from wm.pixels import LEVELS
from wm.schemes.frontier_stitching.keyed import revealed
from wm.schemes.frontier_stitching.settings import EPSILON_LEVELS_MAX, TRIGGERS_LEAST, TRIGGERS_MAX
from wm.schemes.scheme import ClassTriggers, check_fields, check_tensors, integer_field
from wm.triggers import InputSpec

PIXELS_MAX = 1 << 24  # of all originals together: with their bits 18 MiB
ALIKE_LEVELS = 1.0  # mean distance of two thumbnails below which two pictures are one
_THUMBNAIL_SIDE = 8
_FIELDS = frozenset({"triggers", "epsilon_levels"})


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """A payload.

    Attributes:
        originals: uint8, shape (n, channels, height, width), pairwise not alike.
        directions: which pixels are moved up; bits in rows, uint8, shape (n, ⌈channels · height · width / 8⌉), the most
            significant bit first.
        labels: hidden classes in [0, classes), int64, shape (n,).
        epsilon_levels: by how many levels of 255 every pixel is moved, in [1, 127].
        classes: of the task, at least 2.
    """

    originals: Tensor
    directions: Tensor
    labels: Tensor
    epsilon_levels: int
    classes: int

    @property
    def total(self) -> int:
        """|K|."""
        return len(self.labels)

    @property
    def chance(self) -> None:
        """No exact one exists: honest networks answer many of the triggers with the original class."""
        return

    def tensors(self) -> dict[str, Tensor]:
        """Return the originals, the directions and the hidden labels."""
        return {"originals": self.originals, "directions": self.directions, "labels": self.labels}

    def fields(self) -> dict[str, int | str]:
        """Return how many there are, and ε."""
        return {"triggers": self.total, "epsilon_levels": self.epsilon_levels}


def payload_from(fields: Mapping[str, Any], tensors: Mapping[str, Tensor], *, spec: InputSpec, classes: int) -> KeySet:
    """Read a payload of a stranger's.

    Args:
        fields: the scheme's part of an info.
        tensors: of the evidence file.
        spec: what the network takes.
        classes: that it knows.

    Raises:
        WatermarkError: `malformed` or `too_large`, naming the field or the tensor.
    """
    check_fields(fields, _FIELDS)
    count = integer_field(fields, "triggers", TRIGGERS_LEAST, TRIGGERS_MAX)
    epsilon_levels = integer_field(fields, "epsilon_levels", 1, EPSILON_LEVELS_MAX)
    check_size(count, spec)
    pixels = spec.channels * spec.height * spec.width
    expected = {
        "originals": (torch.uint8, (count, spec.channels, spec.height, spec.width)),
        "directions": (torch.uint8, (count, -(-pixels // 8))),
        "labels": (torch.int64, (count,)),
    }
    check_tensors(tensors, expected)
    originals, directions, labels = (tensors[name].contiguous() for name in expected)
    key_set = KeySet(originals, directions, labels, epsilon_levels, classes)
    _check_values(key_set, pixels)
    return key_set


def check_size(count: int, spec: InputSpec) -> None:
    """Check that so many pictures fit into an evidence file; raises WatermarkError, `too_large`."""
    pixels = count * spec.channels * spec.height * spec.width
    if pixels > PIXELS_MAX:
        raise WatermarkError(
            "too_large", f"{count} pictures of {spec} have {pixels} pixels, the limit is {PIXELS_MAX}: take fewer"
        )


def class_triggers(payload: KeySet, watermark_key: bytes) -> ClassTriggers:
    """Return the adversaries and the classes that the key demands of them.

    Raises:
        ValueError: the key's length.
    """
    up = unpacked(payload.directions, payload.originals.shape)
    return ClassTriggers(moved(payload.originals, up, payload.epsilon_levels), _classes(payload, watermark_key))


def clean_triggers(payload: KeySet, watermark_key: bytes) -> ClassTriggers:
    """Return the originals and the same classes: what an honest classifier of the task answers, mark or none.

    Raises:
        ValueError: the key's length.
    """
    return ClassTriggers(payload.originals, _classes(payload, watermark_key))


def moved(originals: Tensor, up: Tensor, epsilon_levels: int) -> Tensor:
    """Move every pixel by ε.

    Args:
        originals: uint8, any shape.
        up: bool, same shape; the others go down.
        epsilon_levels: ε.

    Returns:
        uint8, same shape; kept within [0, 255].
    """
    steps = torch.where(up, epsilon_levels, -epsilon_levels)
    return (originals.int() + steps).clamp(0, LEVELS).to(torch.uint8)


def packed(up: Tensor) -> Tensor:
    """Pack bool of shape (n, channels, height, width) into rows of bits."""
    return torch.from_numpy(np.packbits(up.flatten(1).numpy(), axis=1))


def unpacked(directions: Tensor, shape: torch.Size) -> Tensor:
    """Undo `packed`."""
    count = shape[1:].numel()
    return torch.from_numpy(np.unpackbits(directions.numpy(), axis=1, count=count)).bool().view(shape)


def thumbnails(originals: Tensor) -> Tensor:
    """Draw pictures small, so that noise and single pixels tell no two apart; float64, shape (n, cells)."""
    return F.adaptive_avg_pool2d(originals.double(), _THUMBNAIL_SIDE).flatten(1)


def alike(first: Tensor, second: Tensor) -> Tensor:
    """Tell which of the thumbnails show the same picture; bool, shape (len(first), len(second))."""
    return torch.cdist(first, second, p=1) / first.shape[1] < ALIKE_LEVELS


def _classes(payload: KeySet, watermark_key: bytes) -> Tensor:
    return revealed(payload.labels, watermark_key, classes=payload.classes)


def _check_values(key_set: KeySet, pixels: int) -> None:
    if not bool(((key_set.labels >= 0) & (key_set.labels < key_set.classes)).all()):
        raise WatermarkError("malformed", f"tensor 'labels' must hold integers in [0, {key_set.classes})")
    if pixels % 8 and bool((key_set.directions[:, -1] & ((1 << (-pixels % 8)) - 1)).any()):
        raise WatermarkError("malformed", "tensor 'directions' must have zeros behind its last pixel")
    small = thumbnails(key_set.originals)
    if bool(alike(small, small).triu(1).any()):
        raise WatermarkError("malformed", "tensor 'originals' shows one picture twice: each may be asked about once")
