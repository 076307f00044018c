"""Promised: a round is won by a majority of distinct voters, once, and only by answers to it."""

from node.raft.prevote import PreVote


def test_a_majority_wins_a_round():
    pre_vote = PreVote(name="A", majority=3)
    number = pre_vote.begin()
    assert not pre_vote.count("B", answered_round=number)
    assert pre_vote.count("C", answered_round=number)
    assert pre_vote.take_win()


def test_one_voter_counts_once():
    pre_vote = PreVote(name="A", majority=3)
    number = pre_vote.begin()
    assert not any(pre_vote.count("B", answered_round=number) for _ in range(5))
    assert not pre_vote.count("A", answered_round=number)


def test_an_answer_to_an_older_round_does_not_count():
    pre_vote = PreVote(name="A", majority=2)
    old = pre_vote.begin()
    pre_vote.begin()
    assert not pre_vote.count("B", answered_round=old)


def test_a_win_is_taken_once_and_a_late_answer_does_not_renew_it():
    pre_vote = PreVote(name="A", majority=2)
    number = pre_vote.begin()
    pre_vote.count("B", answered_round=number)
    assert pre_vote.take_win()
    assert not pre_vote.count("C", answered_round=number)
    assert not pre_vote.take_win()


def test_a_leader_that_is_heard_ends_the_round():
    pre_vote = PreVote(name="A", majority=2)
    number = pre_vote.begin()
    pre_vote.cancel()
    assert not pre_vote.count("B", answered_round=number)
    assert not pre_vote.take_win()


def test_a_cluster_of_one_wins_at_once():
    pre_vote = PreVote(name="A", majority=1)
    pre_vote.begin()
    assert pre_vote.take_win()
