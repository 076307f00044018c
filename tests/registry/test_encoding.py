"""One value has one spelling: whatever decodes, encodes to the same bytes; every other spelling is refused."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.encoding import DEPTH_MAX, ENTRY_BYTES_MAX, _canonical, canonical, decode, encode, encode_canonical
from registry.errors import MalformedError

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=20), st.binary(max_size=20)
)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=8), v, max_size=4), max_leaves=20
)


@given(values)
def test_a_value_survives_encoding_and_decoding(value):
    assert decode(encode(value)) == value


@given(values)
def test_the_order_of_a_maps_keys_does_not_change_its_spelling(value):
    first, second = {"a": value, "b": 1}, {"b": 1, "a": value}
    assert encode(first) == encode(second)


@given(values)
def test_the_quick_way_spells_as_the_plain_one_does(value):
    assert encode(value) == msgpack.packb(_canonical(value, DEPTH_MAX), use_bin_type=True)
    assert encode_canonical(canonical(value)) == encode(value) == encode_canonical(decode(encode(value)))


@given(st.binary(max_size=60))
def test_random_bytes_decode_to_a_value_with_that_spelling_or_are_refused(raw):
    try:
        value = decode(raw)
    except MalformedError:
        return
    assert encode(value) == raw


OTHER_SPELLINGS = {
    "number in two bytes": b"\xcc\x01",
    "negative zero width": b"\xd0\x01",
    "string in a long form": b"\xd9\x01a",
    "bytes in a long form": b"\xc5\x00\x01a",
    "array in a long form": b"\xdc\x00\x01\x01",
    "unsorted keys": b"\x82\xa1b\x01\xa1a\x01",
    "repeated key": b"\x82\xa1a\x01\xa1a\x01",
    "trailing byte": b"\x01\x00",
    "float": msgpack.packb(1.5),
    "nan": msgpack.packb(float("nan")),
    "extension": msgpack.packb(msgpack.ExtType(1, b"x")),
    "timestamp": b"\xd6\xff\x00\x00\x00\x01",
    "integer key": b"\x81\x01\x01",
    "bytes as key": b"\x81\xc4\x01a\x01",
    "not UTF-8": b"\xa1\xff",
    "surrogate": b"\xa3\xed\xa0\x80",
    "cut off": b"\x92\x01",
    "empty": b"",
    "never used": b"\xc1",
    "array of four thousand million": b"\xdd\xff\xff\xff\xff",
    "nested too deep": b"\x91" * 1000 + b"\x01",
}


@pytest.mark.parametrize("name", OTHER_SPELLINGS)
def test_another_spelling_is_refused(name):
    with pytest.raises(MalformedError):
        decode(OTHER_SPELLINGS[name])


def test_an_entry_that_is_too_large_is_refused_before_it_is_read():
    assert decode(encode(bytes(ENTRY_BYTES_MAX - 3))) == bytes(ENTRY_BYTES_MAX - 3)
    with pytest.raises(MalformedError) as refused:
        decode(encode(bytes(ENTRY_BYTES_MAX)))
    assert refused.value.code == "too_large"


@pytest.mark.parametrize("value", [1.5, {1: 2}, 2**64, -(2**63) - 1, (1,), {"a": {1}}])
def test_a_value_that_has_no_spelling_is_the_callers_mistake(value):
    with pytest.raises(ValueError, match=r"allowed|fit|string"):
        encode(value)


def test_depth_is_bounded():
    value = 1
    for _ in range(DEPTH_MAX - 1):
        value = [value]
    assert decode(encode(value)) == value
    with pytest.raises(ValueError, match="nested"):
        encode([value])
