"""Promised: settings that contradict each other are refused by name, the defaults are not."""

import pytest

from node.raft.types import RaftSettings


def test_the_defaults_hold_together():
    assert RaftSettings().command_bytes_max == 63 * 1024


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tick_period_s": 0.0}, "tick_period_s"),
        ({"heartbeat_period_s": 0.0}, "heartbeat_period_s"),
        ({"heartbeat_period_s": 0.3}, "election_timeout_min_s"),
        ({"election_timeout_max_s": 0.75}, "election_timeout_max_s"),
        ({"leader_fallback_s": 0.1}, "leader_fallback_s"),
        ({"connection_timeout_s": 1.0}, "connection_timeout_s"),
        ({"connection_retry_s": 0.0}, "connection_retry_s"),
        ({"handshake_timeout_s": 0.0}, "handshake_timeout_s"),
        ({"unauthenticated_connections_max": 0}, "unauthenticated_connections_max"),
        ({"command_bytes_max": 0}, "command_bytes_max"),
        ({"command_bytes_max": 64 * 1024 - 1}, "batch_bytes"),
        ({"frame_bytes_max": 200_000}, "frame_bytes_max"),
        ({"send_buffer_bytes_max": 1024 * 1024}, "send_buffer_bytes_max"),
        ({"queue_commands_max": 0}, "queue_commands_max"),
        ({"queue_bytes_max": 1000}, "queue_bytes_max"),
        ({"uncommitted_entries_max": 0}, "uncommitted_entries_max"),
        ({"journal_cache_bytes_max": -1}, "journal_cache_bytes_max"),
    ],
)
def test_a_contradiction_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        RaftSettings(**changes)


def test_a_full_batch_of_the_smallest_entries_fits_a_frame():
    from node.raft.types import SLICE_ENTRIES_MAX
    from node.raft.wire import encode

    big = 2**63 - 1
    settings = RaftSettings()
    entries = [(b"\x00" * 16, big, big)] * SLICE_ENTRIES_MAX + [(b"\x00" * (settings.command_bytes_max + 1), big, big)]
    message = {"type": "append_entries", "term": big, "commit_index": big, "prevLogIdx": big, "prevLogTerm": big}
    assert len(encode(message | {"entries": entries, "sequence": big})) <= settings.frame_bytes_max
