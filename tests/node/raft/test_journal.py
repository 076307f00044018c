"""Promised: the journal is what a plain model of Raft's rule is, through messages, crashes and restarts."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.raft.journal import COMMAND_BYTES_MAX, SLICE_BYTES_MAX, DurableJournal
from node.raft.journal_format import Entry, JournalError
from node.raft.types import SLICE_ENTRIES_MAX


@pytest.fixture
def journal(tmp_path):
    made = DurableJournal(tmp_path / "journal", cache_bytes_max=200)
    yield made
    made.close()


def fill(journal: DurableJournal, count: int, *, term: int = 1, size: int = 5) -> list[Entry]:
    entries = [(b"%05d" % index + b"x" * (size - 5), index, term) for index in range(1, count + 1)]
    for entry in entries:
        journal.add(entry)
    return entries


def contents(journal: DurableJournal) -> list[Entry]:
    found: list[Entry] = []
    while len(found) < journal.last_index:
        found += journal.entries(len(found) + 1, journal.last_index)
    return found


def receive(journal: DurableJournal, previous: int, entries: list[Entry]) -> None:
    """What SyncObj does with append_entries."""
    if previous < journal.last_index:
        journal.hide_from(previous + 1)
    for entry in entries:
        journal.add(entry)


def model_receive(model: list[Entry], entries: list[Entry]) -> None:
    """What Raft says: figure 2, AppendEntries, steps 3 and 4."""
    for entry in entries:
        index = entry[1]
        if index <= len(model) and model[index - 1][2] != entry[2]:
            del model[index - 1 :]
        if index > len(model):
            model.append(entry)


def draw_message(draw: random.Random, model: list[Entry], term: int) -> tuple[int, list[Entry]]:
    """A leader's message that agrees with the follower up to a point, and may conflict from there on."""
    previous = draw.randint(0, len(model))
    length = draw.randint(0, 6)
    agreed = draw.randint(0, length) if draw.random() < 0.5 else length
    entries = model[previous : previous + agreed]
    first = previous + len(entries) + 1
    new = [(draw.randbytes(draw.randint(1, 40)), first + offset, term) for offset in range(length - len(entries))]
    return previous, entries + new


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_the_journal_is_the_model_after_any_messages_and_restarts(tmp_path_factory, seed):
    draw = random.Random(seed)
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal = DurableJournal(path, cache_bytes_max=100)
    model: list[Entry] = []
    for term in range(1, 60):
        previous, entries = draw_message(draw, model, term)
        receive(journal, previous, entries)
        model_receive(model, entries)
        if draw.random() < 0.7:
            journal.sync()
        journal.set_commit_index(0)
        assert journal.last_index == len(model)
        if draw.random() < 0.2:
            assert contents(journal) == model
        if draw.random() < 0.1:
            journal.close()
            journal = DurableJournal(path, cache_bytes_max=100)
    assert contents(journal) == model
    journal.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_crash_loses_only_what_was_not_synced(tmp_path_factory, seed):
    draw = random.Random(seed)
    path: Path = tmp_path_factory.mktemp("journal") / "journal"
    model: list[Entry] = []
    durable: list[Entry] = []
    journal = DurableJournal(path, cache_bytes_max=100)
    for term in range(1, 60):
        previous, entries = draw_message(draw, model, term)
        receive(journal, previous, entries)
        model_receive(model, entries)
        journal.settle()
        if draw.random() < 0.5:
            journal.sync()
            durable = list(model)
        if draw.random() < 0.15:
            journal._file.close()
            journal = DurableJournal(path, cache_bytes_max=100)
            model = list(durable)
            assert contents(journal) == model
    journal.close()


def test_entries_of_an_old_message_hide_nothing_once_it_is_done(journal):
    entries = fill(journal, 30)
    receive(journal, 1, entries[1:10])
    assert journal.last_index == 10
    assert journal.stored_last_index == 30
    journal.settle()
    assert contents(journal) == entries


def test_an_acknowledged_entry_is_not_written_twice(tmp_path, journal):
    entries = fill(journal, 30)
    journal.sync()
    size = (tmp_path / "journal").stat().st_size
    receive(journal, 1, entries[1:10])
    journal.sync()
    journal.settle()
    assert (tmp_path / "journal").stat().st_size == size


def test_a_conflict_removes_the_rest(journal):
    entries = fill(journal, 30)
    journal.sync()
    receive(journal, 9, [(b"other", 10, 2)])
    journal.settle()
    assert contents(journal) == [*entries[:9], (b"other", 10, 2)]


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param((b"a", 7, 1), id="a gap"),
        pytest.param((b"a", 5, 1), id="an index that is taken"),
        pytest.param((b"a" * (COMMAND_BYTES_MAX + 1), 6, 1), id="too long"),
    ],
)
def test_what_cannot_follow_is_refused(journal, entry):
    fill(journal, 5)
    with pytest.raises(JournalError):
        journal.add(entry)
    journal.add((b"a", 6, 1))


def test_two_commands_of_one_index_and_term_are_refused(journal):
    fill(journal, 5)
    journal.hide_from(3)
    with pytest.raises(JournalError, match="two commands"):
        journal.add((b"forged", 3, 1))


def test_nothing_beyond_the_end_can_be_read(journal):
    fill(journal, 5)
    for index in (0, 6, -1):
        with pytest.raises(IndexError):
            journal.entry(index)


def test_term_and_vote_are_durable_at_once(tmp_path, journal):
    journal.set_vote(7, "node-2")
    journal._file.close()
    again = DurableJournal(tmp_path / "journal", cache_bytes_max=0)
    assert (again.term, again.voted_for) == (7, "node-2")
    again.close()
    journal._file = DurableJournal(tmp_path / "other", cache_bytes_max=0)._file


def test_the_commit_index_never_goes_back_and_syncs_what_it_covers(journal):
    fill(journal, 5)
    journal.set_commit_index(4)
    assert journal._file.last_index == 5
    journal.set_commit_index(2)
    assert journal.commit_index == 4


def test_the_commit_index_is_written_once_a_second_if_it_moved(tmp_path, journal):
    fill(journal, 5)
    journal.sync()
    journal.set_commit_index(5)
    journal.sync_commit_index()
    size = (tmp_path / "journal").stat().st_size
    journal.sync_commit_index()
    assert (tmp_path / "journal").stat().st_size == size
    journal.close()
    again = DurableJournal(tmp_path / "journal", cache_bytes_max=0)
    assert again.commit_index == 5
    again.close()


def test_memory_is_bounded_by_the_cache(journal):
    entries = fill(journal, 3000, size=100)
    journal.sync()
    fill_from = journal.last_index + 1
    journal.add((b"last", fill_from, 1))
    journal.sync()
    assert len(journal._cache) <= 5
    assert contents(journal) == [*entries, (b"last", fill_from, 1)]


def test_a_slice_is_bounded_in_number_and_bytes_but_never_empty(tmp_path):
    journal = DurableJournal(tmp_path / "journal", cache_bytes_max=10**8)
    fill(journal, SLICE_ENTRIES_MAX + 10)
    assert len(journal.entries(1, 10**9)) == SLICE_ENTRIES_MAX
    for index in range(journal.last_index + 1, journal.last_index + 30):
        journal.add((b"x" * 60_000, index, 1))
    found = journal.entries(SLICE_ENTRIES_MAX + 11, 10**9)
    assert sum(len(command) for command, _, _ in found[:-1]) < SLICE_BYTES_MAX
    assert len(journal.entries(journal.last_index, 10**9, bytes_max=1)) == 1
    assert journal.entries(journal.last_index + 1, 10**9) == []
    journal.close()
