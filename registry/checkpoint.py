"""Checkpoints: the log's signed statement of its size and root (C2SP tlog-checkpoint).

The text is three lines, origin, size in decimal and root in base64. Extension lines are not used by this log and
are refused: an old witness implementation signs only the first three lines.
"""

from dataclasses import dataclass

from registry import merkle
from registry.errors import MalformedError, shown
from registry.spelling import decode_base64, encode_base64, is_key_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Size and root of the log that is called origin."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read a checkpoint's text, the final newline included.

        Raises:
            MalformedError: not three lines, or another spelling of the size or the root.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise MalformedError("a checkpoint has three lines: origin, size, root")
        origin, size, digest = lines[0], parse_decimal(lines[1]), decode_base64(lines[2])
        if not is_key_name(origin):
            raise MalformedError(f"origin {shown(origin)} is not a log's name")
        if len(digest) != merkle.HASH_BYTES:
            raise MalformedError("the root of a checkpoint has 32 bytes")
        return cls(origin=origin, size=size, root=digest)

    def __str__(self) -> str:
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"


def parse_decimal(digits: str) -> int:
    """Read a size, index or count: ASCII digits, no sign, space or leading zero, at most 2^64 - 1.

    Raises:
        MalformedError: any other spelling.
    """
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 20:
        raise MalformedError(f"{digits[:30]!r} is not a decimal number of at most 20 digits")
    number = int(digits)
    if str(number) != digits or number > merkle.SIZE_MAX:
        raise MalformedError(f"{shown(digits)} is not a decimal number without leading zeros below 2^64")
    return number
