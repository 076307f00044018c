"""Promised: the queue is bounded and in order, and every command that fails is reported exactly once."""

import pytest

from node.raft.proposals import FailureTable, Proposal, ProposalQueue
from node.raft.types import STOPPED


def commands(count: int, *, size: int = 1) -> list[Proposal]:
    return [Proposal(command=bytes([number]) * size) for number in range(count)]


def test_the_queue_is_first_in_first_out():
    queue = ProposalQueue(commands_max=10, bytes_max=100)
    proposals = commands(5)
    assert [queue.put(proposal) for proposal in proposals] == [None] * 5
    assert queue.take(commands_max=3, bytes_max=100) == proposals[:3]
    assert queue.take(commands_max=3, bytes_max=100) == proposals[3:]
    assert len(queue) == 0


@pytest.mark.parametrize(("commands_max", "bytes_max"), [(3, 1000), (1000, 30)])
def test_a_full_queue_refuses_until_something_is_taken(commands_max, bytes_max):
    queue = ProposalQueue(commands_max=commands_max, bytes_max=bytes_max)
    *fitting, rest = commands(4, size=10)
    assert [queue.put(proposal) for proposal in fitting] == [None] * 3
    assert queue.put(rest) == "queue_full"
    queue.take(commands_max=1, bytes_max=100)
    assert queue.put(rest) is None


def test_no_more_is_taken_than_asked_for():
    queue = ProposalQueue(commands_max=10, bytes_max=100)
    for proposal in commands(5, size=10):
        queue.put(proposal)
    assert len(queue.take(commands_max=10, bytes_max=15)) == 2
    assert queue.take(commands_max=0, bytes_max=100) == []


def test_a_closed_queue_gives_back_what_waits_and_takes_no_more():
    queue = ProposalQueue(commands_max=10, bytes_max=100)
    proposals = commands(2)
    for proposal in proposals:
        queue.put(proposal)
    assert queue.close(STOPPED) == proposals
    assert queue.put(proposals[0]) == "stopped"


@pytest.fixture
def table():
    reports: list[str] = []
    made = FailureTable(lambda on_failed, reason: on_failed(reason))
    made.reports = reports
    return made


def test_an_applied_command_is_not_reported(table):
    table.append(table.reports.append, index=5, term=2)
    table.applied(index=5, term=2)
    table.fail_all("leader_changed")
    assert table.reports == []


def test_a_command_that_lost_its_index_is_reported(table):
    table.append(table.reports.append, index=5, term=2)
    table.applied(index=5, term=3)
    table.fail_all("leader_changed")
    assert table.reports == ["leader_changed"]


def test_a_forwarded_command_that_is_refused_is_reported_once(table):
    number = table.forward(table.reports.append)
    table.refuse(number, "queue_full")
    table.refuse(number, "queue_full")
    table.fail_all("leader_changed")
    assert table.reports == ["queue_full"]


def test_a_forwarded_command_that_is_accepted_waits_for_its_index(table):
    number = table.forward(table.reports.append)
    table.accept(number, index=5, term=2, applied_index=4)
    table.refuse(number, "queue_full")
    assert table.reports == []
    table.applied(index=5, term=9)
    assert table.reports == ["leader_changed"]


def test_a_command_accepted_at_an_index_that_is_applied_already_has_an_unknown_outcome(table):
    number = table.forward(table.reports.append)
    table.accept(number, index=5, term=2, applied_index=5)
    assert table.reports == ["leader_changed"]


def test_an_answer_to_a_number_that_was_never_given_is_ignored(table):
    table.accept(7, index=5, term=2, applied_index=4)
    table.refuse(7, "queue_full")
    assert table.reports == []


def test_everything_under_way_is_reported_at_once(table):
    table.forward(table.reports.append)
    table.append(table.reports.append, index=5, term=2)
    table.append(table.reports.append, index=5, term=3)
    table.fail_all("stopped")
    table.fail_all("stopped")
    assert table.reports == ["stopped"] * 3
