"""Canonical msgpack: one value has one spelling (DESIGN 4.1).

Allowed are nil, bool, integers, UTF-8 strings, byte strings, arrays and maps with string keys in ascending order
of their UTF-8 bytes. Floats and extension types are not: a float has several spellings of "the same" number and
its arithmetic differs between machines. Decoding encodes the result again and compares, so a longer spelling of a
number, unsorted or repeated map keys and trailing bytes are all refused by one rule.
"""

from collections.abc import Iterable
from typing import TypeAlias, cast

import msgpack

from registry.errors import MalformedError

ENTRY_BYTES_MAX = 60 * 1024
DEPTH_MAX = 16
_PLAIN = frozenset({int, str, bytes, bool, type(None)})

Value: TypeAlias = "bool | int | str | bytes | list[Value] | dict[str, Value] | None"


def encode(value: Value) -> bytes:
    """Spell a value canonically.

    Raises:
        ValueError: the value has a type, size or depth that the encoding does not allow.
    """
    return encode_canonical(canonical(value))


def canonical(value: Value) -> Value:
    """The same value with its maps in order, as `decode` would give it.

    Raises:
        ValueError: the value has a type or depth that the encoding does not allow.
    """
    return value if _is_canonical(value, DEPTH_MAX) else _canonical(value, DEPTH_MAX)


def encode_canonical(value: Value) -> bytes:
    """Spell what `decode` or `canonical` gave, or lists and ordered maps of that; order and types are not checked.

    Raises:
        ValueError: an integer does not fit 64 bits.
    """
    try:
        # Half the time of msgpack.packb, which is this and a wrapper.
        return cast("bytes", msgpack.Packer(use_bin_type=True, strict_types=True).pack(value))
    except OverflowError as error:
        raise ValueError("an integer does not fit 64 bits") from error


def decode(raw: bytes, *, bytes_max: int = ENTRY_BYTES_MAX) -> Value:
    """Read a canonical value.

    Args:
        raw: the encoded value, nothing before or after it.
        bytes_max: longest input looked at.

    Raises:
        MalformedError: too long, not msgpack, a type that is not allowed, or another spelling of the value.
    """
    if len(raw) > bytes_max:
        raise MalformedError(f"message of {len(raw)} bytes; at most {bytes_max} are allowed", code="too_large")
    try:
        value: Value = msgpack.unpackb(raw, raw=False, strict_map_key=True, max_ext_len=0)
        again = encode(value)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise MalformedError(f"not canonical msgpack: {str(error) or 'nested too deeply'}") from error
    if again != raw:
        raise MalformedError("not canonical msgpack: the value has a shorter or differently ordered spelling")
    return value


def _is_canonical(value: Value, depth: int) -> bool:
    """Whether a value can be packed as it is; what this cannot tell is left to _canonical, which knows why.

    Decoded messages are, nearly always, and each is spelled again for the comparison and for its signature.
    """
    if type(value) is dict:
        try:
            names = sorted(value)  # code points sort like their UTF-8
        except TypeError:
            return False
        # Whatever sorts beside a string is a string, so one name tells of all.
        if list(value) != names or (names and type(names[0]) is not str):
            return False
        items: Iterable[Value] = value.values()
    elif type(value) is list:
        items = value
    else:
        return depth > 0 and type(value) in _PLAIN
    if depth <= 1:
        return depth == 1 and not value
    for item in items:  # noqa: SIM110 (a generator takes half as long again)
        if type(item) not in _PLAIN and not _is_canonical(item, depth - 1):
            return False
    return True


def _canonical(value: Value, depth: int) -> Value:
    if depth == 0:
        raise ValueError(f"nested deeper than {DEPTH_MAX}")
    if value is None or isinstance(value, bool | str | bytes):
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, list):
        return [_canonical(item, depth - 1) for item in value]
    if isinstance(value, dict):
        if not all([isinstance(name, str) for name in value]):  # noqa: C419 (a generator takes twice as long)
            raise ValueError("a map key is not a string")
        return {
            name: item if type(item := value[name]) in _PLAIN and depth > 1 else _canonical(item, depth - 1)
            for name in sorted(value)
        }
    raise ValueError(f"type {type(value).__name__} is not allowed")
