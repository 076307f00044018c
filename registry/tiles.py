"""Read paths of a log that is served as tiles (C2SP tlog-tiles).

A tile of level L holds up to 256 hashes of complete subtrees of 2^(8L) leaves; an entry bundle holds up to 256
entries, each behind its length as two bytes, big-endian. Partial tiles end in ``.p/<width>``.
"""

from collections.abc import Sequence

from registry.checkpoint import parse_decimal
from registry.errors import MalformedError

TILE_WIDTH = 256
LEVEL_MAX = 7
_ENTRY_BYTES_MAX = 65535


def tile_path(number: int, width: int = TILE_WIDTH) -> str:
    """Path of a tile behind its level: 1234067 is x001/x234/067, with .p/<width> when it is partial.

    Raises:
        ValueError: the number is negative or the width is not in [1, 256].
    """
    if number < 0 or not 1 <= width <= TILE_WIDTH:
        raise ValueError(f"no tile {number} of width {width}")
    path, rest = f"{number % 1000:03d}", number // 1000
    while rest:
        path, rest = f"x{rest % 1000:03d}/{path}", rest // 1000
    return path if width == TILE_WIDTH else f"{path}.p/{width}"


def parse_tile_path(path: str) -> tuple[int, int]:
    """Read a tile's path; return its number and width.

    Raises:
        MalformedError: any other spelling.
    """
    digits, partial, width_digits = path.partition(".p/")
    groups = digits.split("/")
    width = parse_decimal(width_digits) if partial else TILE_WIDTH
    if len(groups) > 7 or not 1 <= width <= TILE_WIDTH:
        raise MalformedError(f"{path[:60]!r} is not a tile's path")
    number = 0
    for group in groups:
        plain = group.removeprefix("x")
        if len(plain) != 3 or not (plain.isascii() and plain.isdigit()):
            raise MalformedError(f"{path[:60]!r} is not a tile's path")
        number = number * 1000 + int(plain)
    if tile_path(number, width) != path:
        raise MalformedError(f"{path[:60]!r} is not a tile's path")
    return number, width


def entry_bundle(entries: Sequence[bytes]) -> bytes:
    """Join entries into a bundle.

    Raises:
        ValueError: more than 256 entries, or one of more than 65,535 bytes.
    """
    if len(entries) > TILE_WIDTH or any(len(entry) > _ENTRY_BYTES_MAX for entry in entries):
        raise ValueError("a bundle has at most 256 entries of at most 65,535 bytes")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def parse_entry_bundle(raw: bytes) -> list[bytes]:
    """Split a bundle into its entries.

    Raises:
        MalformedError: it is cut off; code too_large, it has more than 256 entries.
    """
    entries: list[bytes] = []
    position = 0
    while position < len(raw):
        end = position + 2 + int.from_bytes(raw[position : position + 2], "big")
        if len(entries) == TILE_WIDTH:
            raise MalformedError(f"a bundle of more than {TILE_WIDTH} entries", code="too_large")
        if position + 2 > len(raw) or end > len(raw):
            raise MalformedError("an entry bundle is cut off")
        entries.append(raw[position + 2 : end])
        position = end
    return entries
