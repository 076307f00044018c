"""Strict reading of what nodes say of themselves: one type for each field, or the node is passed over.

A node's JSON is printed, compared and counted. Nothing of it is converted: a number that comes as a text is no number.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar, cast

from client.output import TIME_S_MAX

T = TypeVar("T")
COUNT_MAX = 2**63 - 1  # of SQLite, of POSIX times, and of everything that a node counts
ITEMS_MAX = 4096
TEXT_CHARACTERS_MAX = 4096


def text(value: object) -> str:
    """A text of bounded length; raises TypeError, as all functions here do for another type."""
    if not isinstance(value, str) or len(value) > TEXT_CHARACTERS_MAX:
        raise TypeError("not a text")
    return value


def count(value: object) -> int:
    """A number from 0."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        raise TypeError("not a count")
    return value


def truth(value: object) -> bool:
    """Yes or no."""
    if not isinstance(value, bool):
        raise TypeError("neither true nor false")
    return value


def time_s(value: object) -> int:
    """POSIX seconds that a calendar has."""
    if count(value) > TIME_S_MAX:
        raise TypeError("not a time")
    return cast("int", value)


def digest(value: object) -> str:
    """32 bytes in lower-case hexadecimal, as a text."""
    digits = text(value)
    if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise TypeError("not a hash or a key")
    return digits


def optional(value: object, read: Callable[[object], T]) -> T | None:
    """What `read` reads, or None for null."""
    return None if value is None else read(value)


def mapping(value: object) -> Mapping[str, object]:
    """An object."""
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def items(value: object, read: Callable[[Mapping[str, object]], T]) -> tuple[T, ...]:
    """A list of objects."""
    if not isinstance(value, list) or len(value) > ITEMS_MAX:
        raise TypeError("not a list")
    return tuple(read(mapping(item)) for item in value)
