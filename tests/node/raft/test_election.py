"""Promised: no node raises the term without a chance to win, votes count by voter, no two nodes block each other."""

import pytest
from raft_simulation import Simulation


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    simulation = Simulation("ABC", tmp_path, monkeypatch)
    yield simulation
    simulation.stop()


def term(cluster, name: str) -> int:
    return cluster.nodes[name].fields.term


def receive(cluster, source: str, target: str, **message: object) -> None:
    cluster.nodes[target].transport._onMessageReceived(cluster.nodes[source].selfNode, message)


def test_a_leader_is_elected_in_the_first_term(cluster):
    cluster.run_until(cluster.leader, steps_max=200)
    assert {term(cluster, name) for name in "ABC"} <= {1, 2}


def test_one_won_round_starts_one_election_although_late_answers_come(cluster):
    cluster.elect("A")
    cluster.step(20)
    assert term(cluster, "A") == 1


def test_a_node_that_hears_no_leader_does_not_raise_the_term(cluster):
    cluster.elect("A")
    before = term(cluster, "A")
    cluster.network.cut |= {("A", "B"), ("B", "A")}
    cluster.step(1000)
    assert cluster.leader() == "A"
    assert {term(cluster, name) for name in "ABC"} == {before}


def test_an_isolated_node_does_not_depose_the_leader_when_it_returns(cluster):
    cluster.elect("A")
    before = term(cluster, "A")
    cluster.network.isolate("B", "ABC")
    cluster.step(1000)
    cluster.network.heal()
    cluster.step(200)
    assert cluster.leader() == "A"
    assert term(cluster, "B") == before


def test_a_node_that_hears_no_leader_says_so_and_what_it_asked_of_the_leader_is_reported(cluster):
    cluster.elect("A")
    cluster.run_until(lambda: cluster.nodes["B"].fields.leader is not None)
    cluster.network.isolate("B", "ABC")
    cluster.propose("B", b"on its way to a leader that does not hear")
    cluster.run_until(lambda: cluster.nodes["B"].fields.leader is None, steps_max=200)
    assert cluster.failures == ["leader_changed"]
    cluster.propose("B", b"asked without a leader")
    cluster.run_until(lambda: cluster.failures == ["leader_changed", "no_leader"], steps_max=20)
    cluster.network.heal()
    cluster.run_until(lambda: cluster.nodes["B"].fields.leader is not None, steps_max=200)
    assert cluster.nodes["B"].fields.leader.id == "A"


def test_a_deposed_leader_learns_it_from_the_notice(cluster):
    cluster.elect("A")
    cluster.network.isolate("A", "ABC")
    cluster.elect("B")
    cluster.network.heal()
    cluster.run_until(lambda: term(cluster, "A") == term(cluster, "B"), steps_max=20)
    assert cluster.leader() == "B"


def test_a_deposed_leader_that_only_reaches_a_follower_learns_it_too(cluster):
    cluster.elect("A")
    cluster.network.isolate("A", "ABC")
    cluster.elect("B")
    assert cluster.nodes["A"].fields.state == 2
    cluster.network.cut -= {("A", "C"), ("C", "A")}
    cluster.step(8)
    assert cluster.nodes["A"].fields.state == 0
    assert term(cluster, "A") == term(cluster, "C")


def test_two_nodes_of_which_one_has_the_term_and_the_other_the_log_still_elect(cluster):
    cluster.elect("A")
    cluster.network.isolate("A", "ABC")
    cluster.propose("A", b"makes the log of A longer")
    cluster.step(2)
    cluster.crash("A")
    cluster.crash("C")
    receive(cluster, "B", "B", type="stale_term", term=term(cluster, "B") + 5)
    cluster.start("A")
    cluster.network.heal()
    assert term(cluster, "B") > term(cluster, "A")
    cluster.run_until(lambda: cluster.leader() == "A", steps_max=1000)
    cluster.run_until(lambda: cluster.machines["B"].commands == [b"makes the log of A longer"])


def test_a_vote_is_counted_once_per_voter(tmp_path, monkeypatch):
    simulation = Simulation("ABCDE", tmp_path, monkeypatch)
    candidate = simulation.nodes["A"]
    simulation.network.cut |= {(other, "A") for other in "BCDE"}
    candidate.stock("__setCurrentTerm")(7, "A")
    candidate.fields.state = 1
    candidate._SyncObj__votesCount = 1
    for _ in range(5):
        receive(simulation, "B", "A", type="response_vote", term=7)
    assert candidate.fields.state == 1
    receive(simulation, "C", "A", type="response_vote", term=7)
    assert candidate.fields.state == 2
    simulation.stop()


def test_a_vote_of_another_term_is_not_counted(cluster):
    candidate = cluster.nodes["A"]
    candidate.stock("__setCurrentTerm")(7, "A")
    candidate.fields.state = 1
    candidate._SyncObj__votesCount = 1
    receive(cluster, "B", "A", type="response_vote", term=6)
    assert candidate.fields.state == 1
    receive(cluster, "B", "A", type="response_vote", term=7)
    assert candidate.fields.state == 2


def test_a_pre_vote_is_refused_while_the_leader_is_alive_or_for_a_shorter_log(cluster):
    cluster.elect("A")
    answers = []
    cluster.network.send = lambda _source, _target, message: answers.append(message["granted"]) or True
    _, last_index, last_term = cluster.log("B")[-1]
    request = {"type": "pre_vote", "round": 1, "term": term(cluster, "B") + 1, "last_log_term": last_term}
    receive(cluster, "C", "B", **request, last_log_index=last_index)
    cluster.now_s += 10
    receive(cluster, "C", "B", **request, last_log_index=last_index - 1)
    receive(cluster, "C", "B", **(request | {"term": term(cluster, "B")}), last_log_index=last_index)
    receive(cluster, "C", "B", **request, last_log_index=last_index)
    assert answers == [False, False, False, True]


def test_a_leader_that_stops_hands_over_before_anybody_misses_it(cluster):
    cluster.elect("A")
    cluster.propose("A", b"before")
    cluster.run_until(lambda: cluster.machines["A"].commands == [b"before"])
    cluster.nodes["A"].leave_office()
    began_s = cluster.now_s
    cluster.run_until(lambda: cluster.leader() in {"B", "C"}, steps_max=18)
    assert cluster.now_s - began_s < cluster.settings.election_timeout_min_s
    assert cluster.nodes["A"].fields.state == 0
    cluster.run_until(lambda: cluster.nodes["A"].fields.leader is not None)
    cluster.propose("A", b"through the new leader")
    cluster.run_until(lambda: all(b"through the new leader" in m.commands for m in cluster.machines.values()))
    cluster.step(500)
    assert cluster.leader() != "A"


def test_a_leader_hands_over_only_to_a_follower_that_has_everything(cluster):
    cluster.elect("A")
    cluster.network.isolate("B", "ABC")
    cluster.propose("A", b"that B does not have")
    cluster.run_until(lambda: cluster.machines["C"].commands)
    cluster.network.heal()
    cluster.network.cut |= {("A", "B")}
    cluster.nodes["A"].leave_office()
    cluster.run_until(lambda: cluster.leader() == "C", steps_max=50)
    assert cluster.machines["C"].commands == [b"that B does not have"]


def test_a_leader_that_leaves_takes_no_more_commands(cluster):
    cluster.elect("A")
    cluster.network.isolate("A", "ABC")
    cluster.nodes["A"].leave_office()
    cluster.propose("A", b"too late")
    cluster.step()
    assert cluster.failures == ["no_leader"]


@pytest.mark.parametrize(("source", "term_offset"), [("C", 0), ("A", -1), ("A", 1)])
def test_only_the_present_leader_may_call_for_an_election(cluster, source, term_offset):
    cluster.elect("A")
    cluster.run_until(lambda: cluster.nodes["B"].fields.leader is not None)
    before = term(cluster, "B")
    receive(cluster, source, "B", type="timeout_now", term=before + term_offset)
    cluster.step(3)
    assert term(cluster, "B") == before
    assert cluster.leader() == "A"
