"""The outline of a safetensors file, its tensors' names, types, shapes and places, read without torch.

It tells a client without torch whether nodes could count anything in a model: where the outline is that of the marked
model, which nodes are known to read, and every number in it is finite, they could. Where it is not, they may or may not
(an owner's other classes behind the last tap do no harm, a missing layer does), and only the network itself tells
(`client.marking.fitting`).
"""

import json
import math
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from client.files import CHUNK_BYTES, check_regular

HEADER_BYTES_MAX = 1 << 20  # of the nodes' reader of models
TENSORS_MAX = 8192
_HEADER_AT = 8  # behind the header's length, little-endian
_FLOAT32 = "F32"


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a header says of one tensor.

    Attributes:
        dtype: in the format's words, such as F32.
        shape: the length of each axis.
        begin, end: where its bytes are in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def kind(self) -> tuple[str, tuple[int, ...], int]:
        """Type, shape and bytes."""
        return self.dtype, self.shape, self.end - self.begin


def read_outline(path: Path) -> Mapping[str, Tensor]:
    """Read a file's header; the contents of the tensors are not looked at.

    Raises:
        ValueError: no such file, with the reason.
        InputError: it is a pipe or a device.
        OSError: it cannot be read.
    """
    check_regular(path)
    with path.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(_HEADER_AT), "little")
        header = stream.read(min(header_bytes, HEADER_BYTES_MAX))
        bytes_total = stream.seek(0, 2)
    data_at = _HEADER_AT + header_bytes
    try:
        tensors = _tensors(json.loads(header) if data_at <= bytes_total else None, data_at)
    except (RecursionError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from error
    _check(tensors, data_at, bytes_total)
    return tensors


def _tensors(told: object, data_at: int) -> dict[str, Tensor]:
    if not isinstance(told, dict):
        raise TypeError("its header is cut off, too long, or no header")
    return {name: _tensor(told[name], data_at) for name in told if name != "__metadata__"}


def _tensor(told: Mapping[str, object], data_at: int) -> Tensor:
    dtype, shape, places = told["dtype"], told["shape"], told["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list) or not isinstance(places, list):
        raise TypeError("a tensor has no type, shape or place")
    begin, end = places
    return Tensor(dtype=dtype, shape=tuple(shape), begin=data_at + begin, end=data_at + end)


def _check(tensors: Mapping[str, Tensor], data_at: int, bytes_total: int) -> None:
    if not 1 <= len(tensors) <= TENSORS_MAX:
        raise ValueError(f"it holds {len(tensors)} tensors")
    places = sorted((tensor.begin, tensor.end) for tensor in tensors.values())
    edges = [(data_at, data_at), *places, (bytes_total, bytes_total)]
    if any(before[1] != after[0] for before, after in pairwise(edges)) or any(start > end for start, end in places):
        raise ValueError("its tensors do not fill it")


def difference(suspect: Mapping[str, Tensor], marked: Mapping[str, Tensor]) -> str | None:
    """Name the first tensor by which two outlines differ; None when they are alike."""
    for name in sorted(suspect.keys() | marked.keys()):
        one, other = suspect.get(name), marked.get(name)
        if one is None:
            return f"it lacks the tensor {name!r} of the marked model"
        if other is None:
            return f"it has a tensor {name!r}, which the marked model has not"
        if one.kind != other.kind:
            return f"its tensor {name!r} is {_said(one)}, the marked model's is {_said(other)}"
    return None


def first_not_finite(path: Path, outline: Mapping[str, Tensor]) -> str | None:
    """Name a tensor of single precision that holds an infinity or no number, or was cut off; None when all are finite.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        for name, tensor in outline.items():
            if tensor.dtype != _FLOAT32:
                continue
            stream.seek(tensor.begin)
            left = tensor.end - tensor.begin
            while left > 0:
                content = stream.read(min(left, CHUNK_BYTES))
                if not content or not _are_finite(content):
                    return name
                left -= len(content)
    return None


def _are_finite(content: bytes) -> bool:
    numbers = array("f")
    numbers.frombytes(content[: len(content) // numbers.itemsize * numbers.itemsize])
    if sys.byteorder == "big":
        numbers.byteswap()
    return math.isfinite(sum(numbers))  # in double precision, which a chunk of single ones cannot exceed


def _said(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {list(tensor.shape)}"
