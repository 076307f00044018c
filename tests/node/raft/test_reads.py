"""Promised: a read is granted only after the proof and the state that it needs, and every read gets one answer."""

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
