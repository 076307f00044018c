"""What the verifier process says of a claim on an endpoint: the pictures to ask about.

It is the one long answer, and as hostile as any: the evidence that the pictures come from is a stranger's. So the
pixels stand behind what is parsed, which is short:

    4 bytes   length of the head, big-endian; its first byte is 0, and the map that any other answer is has another
    head      map: shape, mean, std, has_margin
    pixels    picture after picture
"""

import re
from dataclasses import dataclass
from typing import cast

from node.endpoint.pictures import CHANNELS_MAX, PICTURES_MAX, SIDE_MAX, Pictures, Shape
from node.verifier.protocol import LENGTH_BYTES, Answer
from registry import schema
from registry.encoding import Value, decode, encode
from registry.errors import MalformedError

PIXEL_BYTES_MAX = 32 * 2**20
_HEAD_BYTES_MAX = 4096
QUESTIONS_BYTES_MAX = LENGTH_BYTES + _HEAD_BYTES_MAX + PIXEL_BYTES_MAX
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,5})(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What an endpoint is to be asked.

    Attributes:
        pictures: of the evidence.
        has_margin: whether a network gives a picture the class of one that differs in the lowest bits; a mark of
            integrity has triggers of which it does not.
    """

    pictures: Pictures
    has_margin: bool

    def encode(self) -> bytes:
        """The questions as a frame's content."""
        shape, pictures = self.pictures.shape, self.pictures
        value: dict[str, Value] = {
            "shape": [shape.channels, shape.height, shape.width],
            "mean": list(pictures.mean),
            "std": list(pictures.std),
            "has_margin": self.has_margin,
        }
        head = encode(value)
        return b"".join([len(head).to_bytes(LENGTH_BYTES, "big"), head, *pictures.pixels])

    @classmethod
    def decode(cls, raw: bytes) -> "Questions":
        """Read questions; raises MalformedError."""
        end = LENGTH_BYTES + int.from_bytes(raw[:LENGTH_BYTES], "big")
        head, pixels = raw[LENGTH_BYTES:end], raw[end:]
        read = schema.fields(decode(head, bytes_max=_HEAD_BYTES_MAX), _HEAD, what="questions")
        channels, height, width = cast("list[int]", read["shape"])
        shape = Shape(channels=channels, height=height, width=width)
        each = shape.picture_bytes
        if len(pixels) % each or not 1 <= len(pixels) // each <= PICTURES_MAX:
            raise MalformedError(f"questions: {len(pixels)} bytes are not 1 to {PICTURES_MAX} pictures of {shape}")
        try:
            pictures = Pictures(
                shape=shape,
                mean=tuple(cast("list[str]", read["mean"])),
                std=tuple(cast("list[str]", read["std"])),
                pixels=tuple(pixels[first : first + each] for first in range(0, len(pixels), each)),
            )
        except ValueError as error:
            raise MalformedError(f"questions: {error}") from error
        return cls(pictures=pictures, has_margin=cast("bool", read["has_margin"]))


def decode_reply(raw: bytes) -> Questions | Answer:
    """Read what a job that wants pictures is answered with: them, or why there are none; raises MalformedError."""
    return Questions.decode(raw) if raw[:1] == b"\0" else Answer.decode(raw)


def _decimal(value: Value) -> str:
    text = schema.text(17)(value)
    if not _DECIMAL.fullmatch(text):
        raise MalformedError("expected a decimal")
    return text


def _positive(value: Value) -> str:
    text = _decimal(value)
    if float(text) <= 0:
        raise MalformedError("expected a positive decimal")
    return text


def _size(value: Value) -> list[int]:
    sizes = schema.listed(schema.uint(SIDE_MAX, 1), 3, 3)(value)
    if sizes[0] > CHANNELS_MAX:
        raise MalformedError(f"expected at most {CHANNELS_MAX} channels")
    return sizes


_HEAD: dict[str, schema.Checker[object]] = {
    "shape": _size,
    "mean": schema.listed(_decimal, CHANNELS_MAX, 1),
    "std": schema.listed(_positive, CHANNELS_MAX, 1),
    "has_margin": schema.truth,
}
