"""Promised: a read is granted only after the proof and the state that it needs, and every read gets one answer."""

import pytest
from raft_simulation import Simulation

from node.raft.reads import ReadQueue


def waiting(count: int) -> tuple[ReadQueue, list[bool]]:
    reads, answers = ReadQueue(), []
    for _ in range(count):
        reads.add(answers.append)
    return reads, answers


def test_one_round_serves_all_that_wait():
    reads, answers = waiting(3)
    reads.begin_round(sequence=5, index=7)
    reads.settle(proven_sequence=5, applied_index=7)
    assert answers == [True] * 3
    assert not reads.has_new
    assert not reads.has_rounds


def test_neither_proof_nor_state_alone_is_enough():
    reads, answers = waiting(1)
    reads.begin_round(sequence=5, index=7)
    reads.settle(proven_sequence=4, applied_index=7)
    reads.settle(proven_sequence=5, applied_index=6)
    assert answers == []
    assert reads.has_rounds


def test_a_read_that_came_later_waits_for_a_later_proof():
    reads, answers = waiting(1)
    reads.begin_round(sequence=5, index=7)
    reads.add(lambda answer: answers.append(("late", answer)))
    reads.begin_round(sequence=6, index=7)
    reads.settle(proven_sequence=5, applied_index=7)
    assert answers == [True]
    reads.settle(proven_sequence=6, applied_index=7)
    assert answers == [True, ("late", True)]


def test_all_reads_are_refused_once():
    reads, answers = waiting(1)
    reads.begin_round(sequence=5, index=7)
    reads.add(answers.append)
    reads.refuse_all()
    reads.refuse_all()
    reads.settle(proven_sequence=9, applied_index=9)
    assert answers == [False, False]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    simulation = Simulation("ABC", tmp_path, monkeypatch)
    simulation.elect("A")
    simulation.run_until(lambda: all(node.fields.leader is not None for node in simulation.nodes.values()))
    yield simulation
    simulation.stop()


def test_a_follower_answers_when_it_has_what_was_committed_before_the_question(cluster):
    cluster.network.cut.add(("A", "B"))
    cluster.propose("A", b"x")
    cluster.run_until(lambda: cluster.machines["A"].commands == [b"x"])
    cluster.network.heal()
    known = []
    cluster.nodes["B"].read(lambda answer: known.append((answer, list(cluster.machines["B"].commands))))
    cluster.run_until(lambda: known)
    assert known == [(True, [b"x"])]


def test_a_follower_of_a_leader_that_was_cut_off_gets_no_yes(cluster):
    cluster.network.cut |= {("A", "C"), ("C", "A")}
    cluster.network.cut.add(("B", "A"))
    answers = []
    cluster.nodes["A"].read(answers.append)
    cluster.network.cut.discard(("B", "A"))
    cluster.nodes["B"].read(answers.append)
    cluster.network.isolate("A", "ABC")
    cluster.step(500)
    assert answers == [False, False]


def test_without_a_leader_a_read_is_refused_at_once(cluster):
    cluster.network.isolate("B", "ABC")
    cluster.run_until(lambda: cluster.nodes["B"].fields.leader is None)
    answers = []
    cluster.nodes["B"].read(answers.append)
    cluster.step()
    assert answers == [False]


def test_only_the_leaders_answer_is_believed(cluster):
    cluster.network.cut |= {("B", "A")}
    answers = []
    cluster.nodes["B"].read(answers.append)
    cluster.step()
    told = {"type": "read_answer", "request_id": 1, "granted": True, "index": 1}
    cluster.nodes["B"].transport._onMessageReceived(cluster.nodes["C"].selfNode, told)
    assert answers == []
    cluster.nodes["B"].transport._onMessageReceived(cluster.nodes["A"].selfNode, told)
    assert answers == [True]
