"""A hundred thousand damaged frames: each is refused as such, or is a message that is spelled the same again."""

import random
from collections import Counter

import pytest
from mutations import mutated

from node.raft.wire import WireError, decode, encode

FRAMES = 100_000
LIMIT = 1000
ENTRIES = [(b"\x00a" * 20, 4, 2), (b"\x01", 5, 5), (b"\x00b", 6, 5)]
SOUND = [
    {"type": "append_entries", "term": 5, "commit_index": 3, "prevLogIdx": 3, "prevLogTerm": 2, "sequence": 9}
    | {"entries": ENTRIES},
    {"type": "next_node_idx", "term": 5, "next_node_idx": 6, "last_index": 5, "sequence": 9}
    | {"reset": False, "success": True},
    {"type": "request_vote", "term": 5, "last_log_index": 3, "last_log_term": 2},
    {"type": "pre_vote", "round": 1, "term": 5, "last_log_index": 3, "last_log_term": 2},
    {"type": "pre_vote_answer", "round": 1, "term": 5, "granted": True},
    {"type": "forward", "request_id": 1, "commands": [b"x" * 200]},
    {"type": "forward_accepted", "request_id": 1, "count": 1, "index": 4, "term": 5},
    {"type": "forward_refused", "request_id": 1, "reason": "queue_full"},
    {"type": "stale_term", "term": 5},
    {"type": "ping"},
]


@pytest.mark.long
def test_no_damaged_frame_does_anything_but_be_refused_or_be_a_message():
    draw = random.Random(1)
    frames = [encode(message) for message in SOUND]
    outcomes: Counter[str] = Counter()
    for _ in range(FRAMES):
        data = mutated(draw.choice(frames), draw, others=frames)
        try:
            message = decode(data, command_bytes_max=LIMIT)
        except WireError:
            outcomes["refused"] += 1
        else:
            assert decode(encode(message), command_bytes_max=LIMIT) == message
            outcomes["a message"] += 1
    assert min(outcomes["refused"], outcomes["a message"]) > FRAMES // 100, outcomes
