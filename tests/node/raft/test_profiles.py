"""Promised: the times of both profiles hold together, also between members that have chosen differently."""

import itertools

import pytest

from node.raft import PROFILES, RaftSettings, settings_of


def test_a_lan_is_what_the_defaults_are_for():
    assert settings_of("lan") == RaftSettings()


def test_a_wan_waits_for_ten_round_trips_of_150_ms():
    wan = settings_of("wan", bind_host="192.0.2.1")
    assert wan.election_timeout_min_s >= 10 * 0.150
    assert wan.leader_fallback_s == wan.election_timeout_max_s == 3
    assert wan.bind_host == "192.0.2.1"


@pytest.mark.parametrize(("leader", "follower"), list(itertools.product(PROFILES.values(), repeat=2)))
def test_members_with_different_profiles_hear_of_each_other_in_time(leader: RaftSettings, follower: RaftSettings):
    assert 2 * leader.heartbeat_period_s < follower.election_timeout_min_s
    assert leader.frame_bytes_max == follower.frame_bytes_max
    assert leader.connection_timeout_s / 4 < follower.connection_timeout_s
    assert leader.command_bytes_max == follower.command_bytes_max
