"""Strict reading of decoded maps: every field named, typed and bounded, none left over.

A checker takes the decoded value and returns it typed, or raises MalformedError with what was expected. `fields`
applies one checker per key and puts the field's name into the message.
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from registry.encoding import Value
from registry.errors import MalformedError, shown

T = TypeVar("T")
Checker = Callable[[Value], T]
UINT_MAX = 2**63 - 1
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def fields(value: Value, checkers: Mapping[str, Checker[object]], *, what: str) -> dict[str, object]:
    """Check a map that must have exactly the given keys.

    Args:
        value: the decoded value.
        checkers: one checker for each key.
        what: name of the thing for the error's message.

    Raises:
        MalformedError: not a map, a key is missing or unknown, or a value fails its checker.
    """
    if not isinstance(value, dict):
        raise MalformedError(f"{what}: expected a map")
    if value.keys() != checkers.keys():
        unknown, missing = sorted(set(value) - set(checkers)), sorted(set(checkers) - set(value))
        raise MalformedError(f"{what}: missing fields {missing}, unknown fields {shown(unknown)}")
    checked: dict[str, object] = {}
    for name, checker in checkers.items():
        try:
            checked[name] = checker(value[name])
        except MalformedError as error:
            raise MalformedError(f"{what}: field {name}: {error}") from error
    return checked


def uint(maximum: int = UINT_MAX, minimum: int = 0) -> Checker[int]:
    """An integer in [minimum, maximum]; a bool is not one."""

    def check(value: Value) -> int:
        if type(value) is not int or not minimum <= value <= maximum:
            raise MalformedError(f"expected an integer in [{minimum}, {maximum}]")
        return value

    return check


def truth(value: Value) -> bool:
    """True or false, and no number for them."""
    if type(value) is not bool:
        raise MalformedError("expected true or false")
    return value


def octets(length: int, maximum: int | None = None) -> Checker[bytes]:
    """A byte string of exactly `length` bytes, or of `length` to `maximum` bytes."""
    longest = length if maximum is None else maximum

    def check(value: Value) -> bytes:
        if type(value) is not bytes or not length <= len(value) <= longest:
            raise MalformedError(f"expected {length} to {longest} bytes")
        return value

    return check


def text(maximum: int, minimum: int = 1) -> Checker[str]:
    """A string of `minimum` to `maximum` characters without control characters."""

    def check(value: Value) -> str:
        if not isinstance(value, str) or not minimum <= len(value) <= maximum:
            raise MalformedError(f"expected a string of {minimum} to {maximum} characters")
        if not value.isprintable() and _CONTROL.search(value):
            raise MalformedError("expected a string without control characters")
        return value

    return check


def optional(checker: Checker[T]) -> Checker[T | None]:
    """What `checker` takes, or nil."""
    return lambda value: None if value is None else checker(value)


def row(length: int) -> Checker[list[Value]]:
    """An array of exactly `length` items of any kind; its reader checks them."""

    def check(value: Value) -> list[Value]:
        if not isinstance(value, list) or len(value) != length:
            raise MalformedError(f"expected an array of {length} to {length} items")
        return value

    return check


def listed(checker: Checker[T], maximum: int, minimum: int = 0) -> Checker[list[T]]:
    """An array of `minimum` to `maximum` items that each pass `checker`."""

    def check(value: Value) -> list[T]:
        if not isinstance(value, list) or not minimum <= len(value) <= maximum:
            raise MalformedError(f"expected an array of {minimum} to {maximum} items")
        return [checker(item) for item in value]

    return check


def mapping(value: Value) -> dict[str, Value]:
    """A map of any content; its reader checks the rest."""
    if not isinstance(value, dict):
        raise MalformedError("expected a map")
    return value


def pair(first: Checker[object], second: Checker[object]) -> Checker[tuple[object, object]]:
    """An array of exactly two items."""
    two = row(2)

    def check(value: Value) -> tuple[object, object]:
        one, other = two(value)
        return first(one), second(other)

    return check
