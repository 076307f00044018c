"""Promised: a message is exactly one of the table's, with every field in range, or it is refused."""

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.raft.types import SLICE_ENTRIES_MAX
from node.raft.wire import _FIELDS, WireError, decode, encode

LIMIT = 1000
APPEND = {
    "type": "append_entries",
    "term": 5,
    "commit_index": 3,
    "prevLogIdx": 3,
    "prevLogTerm": 2,
    "entries": [(b"\x00a", 4, 2), (b"\x01", 5, 5)],
    "sequence": 9,
}
ANSWER = {
    "type": "next_node_idx",
    "term": 5,
    "next_node_idx": 6,
    "last_index": 5,
    "reset": False,
    "success": True,
    "sequence": 9,
}
VOTE = {"type": "request_vote", "term": 5, "last_log_index": 3, "last_log_term": 2}
PRE_VOTE = {"type": "pre_vote", "round": 1, "term": 5, "last_log_index": 3, "last_log_term": 2}
PRE_ANSWER = {"type": "pre_vote_answer", "round": 1, "term": 5, "granted": True}
FORWARD = {"type": "forward", "request_id": 1, "commands": [b"x" * LIMIT]}
ACCEPTED = {"type": "forward_accepted", "request_id": 1, "count": 1, "index": 4, "term": 5}
REFUSED = {"type": "forward_refused", "request_id": 1, "reason": "queue_full"}
SOUND = [
    APPEND,
    ANSWER,
    VOTE,
    {"type": "response_vote", "term": 5},
    PRE_VOTE,
    PRE_ANSWER,
    {"type": "stale_term", "term": 5},
    {"type": "timeout_now", "term": 5},
    {"type": "read", "request_id": 7},
    {"type": "read_answer", "request_id": 7, "granted": True, "index": 9},
    FORWARD,
    ACCEPTED,
    REFUSED,
    {"type": "ping"},
]


@pytest.mark.parametrize("message", SOUND, ids=lambda message: message["type"])
def test_a_sound_message_comes_back_as_it_was(message):
    assert decode(encode(message), command_bytes_max=LIMIT) == message


def test_every_message_of_the_table_is_among_the_sound_ones():
    assert {message["type"] for message in SOUND} == set(_FIELDS)


@pytest.mark.parametrize("message", SOUND, ids=lambda message: message["type"])
def test_a_field_less_or_a_field_more_is_refused(message):
    for name in message:
        fewer = {key: value for key, value in message.items() if key != name}
        with pytest.raises(WireError):
            decode(encode(fewer), command_bytes_max=LIMIT)
    with pytest.raises(WireError):
        decode(encode(message | {"extra": 1}), command_bytes_max=LIMIT)


@pytest.mark.parametrize("message", SOUND, ids=lambda message: message["type"])
@pytest.mark.parametrize("value", [-1, 2**63, True, None, "1", b"1", 1.0, [], {}], ids=repr)
def test_integers_of_another_type_or_out_of_range_are_refused(message, value):
    for name in message:
        if type(message[name]) is int:
            with pytest.raises(WireError):
                decode(encode(message | {name: value}), command_bytes_max=LIMIT)


HOSTILE = {
    "a snapshot": APPEND | {"serialized": [b"x", True, True]},
    "a snapshot alone": {"type": "append_entries", "term": 5, "commit_index": 1, "serialized": [b"x", True, True]},
    "a pickled entry in pieces": APPEND | {"transmission": "start", "data": b"x"},
    "a membership entry": APPEND | {"entries": [(b"\x02x", 4, 5)]},
    "a version entry": APPEND | {"entries": [(b"\x03x", 4, 5)]},
    "an empty entry": APPEND | {"entries": [(b"", 4, 5)]},
    "a regular entry without a command": APPEND | {"entries": [(b"\x00", 4, 5)]},
    "a no-op with a command": APPEND | {"entries": [(b"\x01x", 4, 5)]},
    "an entry that is too long": APPEND | {"entries": [(b"\x00" + b"x" * (LIMIT + 1), 4, 5)]},
    "an entry of text": APPEND | {"entries": [("\x00a", 4, 5)]},
    "an entry with a fourth part": APPEND | {"entries": [(b"\x00a", 4, 5, 0)]},
    "a gap": APPEND | {"entries": [(b"\x00a", 5, 5)]},
    "a repeated index": APPEND | {"entries": [(b"\x00a", 4, 5), (b"\x00a", 4, 5)]},
    "falling terms": APPEND | {"entries": [(b"\x00a", 4, 5), (b"\x00b", 5, 4)]},
    "an entry older than the previous one": APPEND | {"entries": [(b"\x00a", 4, 1)]},
    "an entry from the future": APPEND | {"entries": [(b"\x00a", 4, 6)]},
    "a previous entry from the future": APPEND | {"prevLogTerm": 6, "entries": []},
    "a previous index of zero": APPEND | {"prevLogIdx": 0, "entries": []},
    "entries that are no list": APPEND | {"entries": {}},
    "a flag that is a number": ANSWER | {"success": 1},
    "PySyncObj's own forwarding": {"type": "apply_command", "command": b"\x03x", "request_id": 1},
    "a utility command": ["remove", "node-1"],
    "a node's name": "node-1",
    "an unknown type": {"type": "surprise"},
    "a type that is no text": {"type": 7},
    "no type": {"term": 5},
    "an empty command": FORWARD | {"commands": [b"x", b""]},
    "a command that is too long": FORWARD | {"commands": [b"x", b"x" * (LIMIT + 1)]},
    "a command of text": FORWARD | {"commands": ["x"]},
    "no commands": FORWARD | {"commands": []},
    "a command that is not in a list": FORWARD | {"commands": b"x"},
    "none accepted": ACCEPTED | {"count": 0},
    "more accepted than a message holds": ACCEPTED | {"count": SLICE_ENTRIES_MAX + 1},
    "an invented reason": REFUSED | {"reason": "because"},
    "an index of zero": ACCEPTED | {"index": 0},
}


@pytest.mark.parametrize("message", HOSTILE.values(), ids=HOSTILE)
def test_what_pysyncobj_would_obey_or_choke_on_is_refused(message):
    with pytest.raises(WireError):
        decode(msgpack.packb(message), command_bytes_max=LIMIT)


BOMBS = {
    "nothing": b"",
    "garbage": b"\xc1" * 50,
    "an array of four thousand million": b"\xdd\xff\xff\xff\xff",
    "a map of four thousand million": b"\xdf\xff\xff\xff\xff",
    "nested arrays that announce much": b"\xdd\x00\x0f\xff\xff" * 400,
    "nested beyond the stack": b"\x91" * 100_000,
    "an extension": b"\xc7\x05\x01abcde",
    "a timestamp": msgpack.packb(msgpack.Timestamp(1)),
    "trailing bytes": encode({"type": "ping"}) + b"\x00",
    "cut short": encode(APPEND)[:-1],
    "text that is not UTF-8": b"\x81\xa4type\xa2\xff\xfe",
    "a repeated field": b"\x82\xa4type\xa4ping\xa4type\xa4pong",
    "a map with a number for a key": b"\x81\x01\x01",
    "a pickle": b"\x80\x02cbuiltins\neval\nq\x00X\x01\x00\x00\x001q\x01\x85q\x02Rq\x03.",
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_what_is_not_one_message_is_refused(data):
    with pytest.raises(WireError):
        decode(data, command_bytes_max=LIMIT)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_and_nothing_else_is_raised(data):
    try:
        message = decode(data, command_bytes_max=LIMIT)
    except WireError:
        return
    assert message["type"] in _FIELDS


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers(0, 2**64 - 1) | st.binary(max_size=9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)))  # fmt: skip
def test_arbitrary_values_in_place_of_a_field_raise_nothing_else(value):
    for name in APPEND:
        changed = APPEND | {name: value}
        try:
            message = decode(encode(changed), command_bytes_max=LIMIT)
        except WireError:
            continue
        assert message == changed
