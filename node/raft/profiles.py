"""Times that suit the network between the members: a LAN, or a WAN with round trips of 50 to 150 ms.

A WAN's election timeout is ten round trips, its leader and its connections are given up later, and a message may carry
four times as much, since an acknowledgement takes as long as many of a LAN. Members may differ: all that one expects of
another is to hear of it before its own election timeout, which is more than two heartbeats of either profile.
"""

from collections.abc import Mapping
from dataclasses import replace

from node.raft.types import RaftSettings

PROFILES: Mapping[str, RaftSettings] = {
    "lan": RaftSettings(),
    "wan": RaftSettings(
        election_timeout_min_s=1.5,
        election_timeout_max_s=3.0,
        heartbeat_period_s=0.25,
        leader_fallback_s=3.0,
        connection_timeout_s=8.0,
        connection_retry_s=1.0,
        handshake_timeout_s=10.0,
        batch_bytes=256 * 1024,
    ),
}


def settings_of(profile: str, *, bind_host: str = "") -> RaftSettings:
    """The settings of a profile, which is one of PROFILES."""
    return replace(PROFILES[profile], bind_host=bind_host)
