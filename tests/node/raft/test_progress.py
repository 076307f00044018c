"""Promised: only answers to this term of office count, and an old order to go back is not obeyed twice."""

import pytest

from node.raft.progress import Progress


def office(sent: int) -> Progress:
    progress = Progress()
    progress.begin_office()
    for _ in range(sent):
        progress.next_sequence()
    return progress


def test_an_answer_to_a_message_of_this_office_counts():
    assert office(3).answer("B", 3)


@pytest.mark.parametrize("sequence", [0, 1, 2, 6, 10**9])
def test_an_answer_to_an_earlier_office_or_to_nothing_is_ignored(sequence):
    progress = office(2)
    progress.begin_office()
    for _ in range(3):
        progress.next_sequence()
    assert not progress.answer("B", sequence)


def test_orders_to_go_back_count_only_for_messages_sent_after_the_last_one_was_obeyed():
    progress = office(5)
    assert progress.obey_reset("B", 2)
    assert not progress.obey_reset("B", 3)
    assert not progress.obey_reset("B", 5)
    assert progress.obey_reset("C", 3)
    progress.next_sequence()
    assert progress.obey_reset("B", 6)


@pytest.mark.parametrize(
    ("answers", "majority", "proven"),
    [({}, 2, 0), ({"B": 4}, 2, 4), ({"B": 4, "C": 5}, 2, 5), ({"B": 4}, 3, 0), ({"B": 4, "C": 5}, 3, 4)],
)
def test_the_proof_is_what_a_majority_with_the_leader_has_answered(answers, majority, proven):
    progress = office(5)
    for peer, sequence in answers.items():
        progress.answer(peer, sequence)
    assert progress.proven_sequence("BCDE"[: 2 * majority - 2], majority=majority) == proven


def test_an_older_answer_does_not_lower_the_proof():
    progress = office(5)
    progress.answer("B", 5)
    progress.answer("B", 2)
    assert progress.proven_sequence("BC", majority=2) == 5


def test_a_cluster_of_one_needs_no_answer():
    assert office(0).proven_sequence("", majority=1) == 1
