"""What one node may say to another: a whitelist of messages in msgpack, each with exactly its fields.

PySyncObj's own messages keep its names, since its code reads them; the rest is ours (see the table). What PySyncObj
would also obey is not in the table and so refused: snapshots ("serialized"), pickled entries in pieces
("transmission"), utility commands, membership and version entries.

| message | from, to | meaning |
|---|---|---|
| append_entries | leader, follower | Raft; numbered by `sequence`, which the answer repeats |
| next_node_idx | follower, leader | the answer: success or reset, and where the follower's log ends |
| request_vote, response_vote | candidate, peer | Raft |
| pre_vote, pre_vote_answer | would-be candidate, peer | Raft thesis 9.6 |
| stale_term | follower, deposed leader | the term that the leader has missed |
| read | follower, leader | what must I have applied before I may answer? |
| read_answer | leader, follower | that, once it has proved that it leads; or that it does not |
| timeout_now | leader that stops, follower | stand for election at once (Raft thesis 3.10) |
| forward | follower, leader | proposed commands, numbered from `request_id` on |
| forward_accepted | leader, follower | so many of them were appended, one behind the other, from `index` on |
| forward_refused | leader, follower | why one of them was not |
| ping | both | nothing; a connection without traffic is closed |
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgpack

from node.raft.compat import NO_OP, REGULAR
from node.raft.types import NO_LEADER, QUEUE_FULL, SLICE_ENTRIES_MAX, STOPPED

Message = dict[str, Any]

INTEGER_END = 2**63
FIELDS_MAX = 8
TEXT_BYTES_MAX = 32

_REASONS = frozenset({NO_LEADER, QUEUE_FULL, STOPPED})
_Check = Callable[[object, int], bool]


class WireError(Exception):
    """A peer sent what no correct node sends; its connection is closed."""


def encode(message: Message) -> bytes:
    """Encode one message as the body of a frame."""
    data: bytes = msgpack.packb(message)
    return data


def decode(data: bytes, *, command_bytes_max: int) -> Message:
    """Decode one frame and check every field of it.

    Args:
        data: body of a frame, its size already limited.
        command_bytes_max: longest command, its type byte not counted.

    Returns:
        The message; the entries of append_entries are tuples (command, index, term), as SyncObj keeps them.

    Raises:
        WireError: not msgpack, not a message of the table, or a field that is missing, unknown or out of range.
    """
    message = _unpack(data, command_bytes_max)
    kind = message.get("type")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise WireError(f"unknown message {kind!r:.40}")
    if message.keys() != fields.keys():
        raise WireError(f"{kind} with other fields than its own")
    for name, check in fields.items():
        if not check(message[name], command_bytes_max):
            raise WireError(f"{kind}: bad {name}")
    if kind == "append_entries":
        message["entries"] = _ordered_entries(message)
    return message


def _unpack(data: bytes, command_bytes_max: int) -> Message:
    # The limits matter: an array header alone makes the decoder reserve what it announces.
    try:
        message = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=TEXT_BYTES_MAX,
            max_bin_len=command_bytes_max + 1,
            max_array_len=SLICE_ENTRIES_MAX,
            max_map_len=FIELDS_MAX,
            max_ext_len=0,
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"not msgpack: {error!r:.80}") from None
    if not isinstance(message, dict):
        raise WireError("not a message")
    return message


def _ordered_entries(message: Message) -> list[tuple[bytes, int, int]]:
    """Check that entries continue the log: indices without gaps, terms that never fall and end by the sender's."""
    index, term = message["prevLogIdx"], message["prevLogTerm"]
    if term > message["term"]:
        raise WireError("append_entries: a previous entry from the future")
    ordered = []
    for command, entry_index, entry_term in message["entries"]:
        index += 1
        if entry_index != index or not term <= entry_term <= message["term"]:
            raise WireError("append_entries: entries out of order")
        term = entry_term
        ordered.append((command, entry_index, entry_term))
    return ordered


def _is_integer(value: object, _limit: int) -> bool:
    return type(value) is int and 0 <= value < INTEGER_END  # type, not isinstance: True is not 1 here


def _is_index(value: object, limit: int) -> bool:
    return _is_integer(value, limit) and value != 0


def _is_flag(value: object, _limit: int) -> bool:
    return type(value) is bool


def _is_literal_type(value: object, _limit: int) -> bool:
    return isinstance(value, str)


def _is_reason(value: object, _limit: int) -> bool:
    return isinstance(value, str) and value in _REASONS


def _is_count(value: object, limit: int) -> bool:
    return _is_integer(value, limit) and 1 <= cast("int", value) <= SLICE_ENTRIES_MAX


def _are_proposals(value: object, limit: int) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_proposal(command, limit) for command in value)


def _is_proposal(value: object, limit: int) -> bool:
    return isinstance(value, bytes) and 1 <= len(value) <= limit


def _is_stored_command(value: object, limit: int) -> bool:
    return isinstance(value, bytes) and (value == NO_OP or (value[:1] == REGULAR and 2 <= len(value) <= limit + 1))


def _are_entries(value: object, limit: int) -> bool:
    return isinstance(value, list) and all(_is_entry(entry, limit) for entry in value)


def _is_entry(value: object, limit: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and _is_stored_command(value[0], limit)
        and _is_index(value[1], limit)
        and _is_integer(value[2], limit)
    )


_FIELDS: Mapping[str, Mapping[str, _Check]] = {
    "append_entries": {
        "type": _is_literal_type,
        "term": _is_integer,
        "commit_index": _is_integer,
        "prevLogIdx": _is_index,
        "prevLogTerm": _is_integer,
        "entries": _are_entries,
        "sequence": _is_integer,
    },
    "next_node_idx": {
        "type": _is_literal_type,
        "term": _is_integer,
        "next_node_idx": _is_index,
        "last_index": _is_integer,
        "reset": _is_flag,
        "success": _is_flag,
        "sequence": _is_integer,
    },
    "request_vote": {
        "type": _is_literal_type,
        "term": _is_integer,
        "last_log_index": _is_integer,
        "last_log_term": _is_integer,
    },
    "response_vote": {"type": _is_literal_type, "term": _is_integer},
    "pre_vote": {
        "type": _is_literal_type,
        "round": _is_integer,
        "term": _is_integer,
        "last_log_index": _is_integer,
        "last_log_term": _is_integer,
    },
    "pre_vote_answer": {
        "type": _is_literal_type,
        "round": _is_integer,
        "term": _is_integer,
        "granted": _is_flag,
    },
    "stale_term": {"type": _is_literal_type, "term": _is_integer},
    "timeout_now": {"type": _is_literal_type, "term": _is_integer},
    "read": {"type": _is_literal_type, "request_id": _is_integer},
    "read_answer": {
        "type": _is_literal_type,
        "request_id": _is_integer,
        "granted": _is_flag,
        "index": _is_integer,
    },
    "forward": {"type": _is_literal_type, "request_id": _is_integer, "commands": _are_proposals},
    "forward_accepted": {
        "type": _is_literal_type,
        "request_id": _is_integer,
        "count": _is_count,
        "index": _is_index,
        "term": _is_integer,
    },
    "forward_refused": {"type": _is_literal_type, "request_id": _is_integer, "reason": _is_reason},
    "ping": {"type": _is_literal_type},
}
