"""The store keeps what the rules accept, once, and serves no file that contradicts itself."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from fakes import LedgerMaker, replayed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.errors import InconsistentStateError
from node.store import Store
from registry import merkle
from registry.entry import Entry
from registry.rules import Accepted, Duplicate, Refused
from registry.verdict import Outcome


def make(path: Path, maker: LedgerMaker) -> Store:
    Store.create(path, genesis_entry=maker.entries[0])
    return Store(path)


def order(store: Store, *commands: bytes | None) -> None:
    store.begin()
    for command in commands:
        store.apply(store.applied_index + 1, command)
    store.commit()


@pytest.fixture
def maker() -> LedgerMaker:
    maker = LedgerMaker()
    maker.verified_claim()
    return maker


@pytest.fixture
def path(tmp_path: Path, maker: LedgerMaker) -> Path:
    """A stored ledger that is closed."""
    store = make(tmp_path / "ledger.db", maker)
    order(store, *maker.entries[1:])
    store.close()
    return tmp_path / "ledger.db"


def edit(path: Path, statement: str, *parameters: object) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement, parameters)
    connection.close()


def test_what_was_committed_is_there_after_opening_again(path: Path, maker: LedgerMaker):
    store = Store(path)
    assert store.size == maker.ledger.size == 6
    assert store.applied_index == 5
    assert store.entries(0, 100) == maker.entries
    assert [store.root(size) for size in range(7)] == [replayed(maker.entries).root_at(size) for size in range(7)]
    claim = store.claims()[0]
    assert store.verdict(claim).outcome is Outcome.VERIFIED
    assert set(store.claim_state(claim).votes) == {"node-1", "node-2", "node-3"}
    assert store.find(claim).index == 2
    store.close()


def test_entries_are_found_by_their_indexes_and_none_that_does_not_exist(path: Path, maker: LedgerMaker):
    store = Store(path)
    assert store.entries_at({4, 1}) == {1: maker.entries[1], 4: maker.entries[4]}
    assert store.entries_at(set()) == {}
    for absent in (6, -1):
        with pytest.raises(ValueError, match=rf"no entries \[{absent}\]"):
            store.entries_at({1, absent})
    store._size = 4  # of a batch that is not whole yet
    with pytest.raises(ValueError, match="in a ledger of 4"):
        store.entries_at({1, 4})
    store.close()


def test_outcomes_are_handed_over_once_and_in_order(tmp_path: Path, maker: LedgerMaker):
    store = make(tmp_path / "ledger.db", maker)
    order(store, maker.entries[1], None, b"nonsense", maker.entries[1], maker.entries[2])
    kinds = [type(outcome) for outcome in store.take_outcomes()]
    assert kinds == [Accepted, Refused, Duplicate, Accepted]
    assert store.take_outcomes() == []
    assert (store.size, store.applied_index) == (3, 5)
    store.close()


def test_a_refused_command_leaves_nothing_but_its_index(tmp_path: Path, maker: LedgerMaker):
    store = make(tmp_path / "ledger.db", maker)
    order(store, b"", b"\x00" * 100, Entry(b"x", 0).encode())
    store.close()
    again = Store(tmp_path / "ledger.db")
    assert (again.size, again.applied_index) == (1, 3)
    again.close()


def test_a_command_that_comes_again_after_a_restart_is_skipped(tmp_path: Path, maker: LedgerMaker):
    store = make(tmp_path / "ledger.db", maker)
    order(store, *maker.entries[1:3])
    store.begin()
    store.apply(2, maker.entries[3])
    store.commit()
    assert (store.size, store.applied_index) == (3, 2)
    store.close()


def test_a_batch_that_was_not_committed_is_as_if_it_never_came(tmp_path: Path, maker: LedgerMaker):
    store = make(tmp_path / "ledger.db", maker)
    order(store, maker.entries[1])
    store.begin()
    store.apply(2, maker.entries[2])
    assert store.size == 2
    assert store.find(maker.ledger.claims()[0]) is None
    shutil.copytree(tmp_path, tmp_path.parent / "after_crash")
    again = Store(tmp_path.parent / "after_crash" / "ledger.db")
    assert (again.size, again.applied_index) == (2, 1)
    order(again, *maker.entries[2:])
    assert again.root(6) == replayed(maker.entries).root_at(6)
    again.close()
    store.close()


def test_claims_and_votes_are_shown_when_they_are_durable_and_not_before(tmp_path: Path, maker: LedgerMaker):
    store, claim = make(tmp_path / "ledger.db", maker), maker.ledger.claims()[0]
    order(store, maker.entries[1])
    store.begin()
    store.apply(2, maker.entries[2])
    assert (store.claims(), store.claim_state(claim)) == ([], None)
    with pytest.raises(ValueError, match="not durable"):
        store.verdict(claim)
    store.commit()
    assert store.claims() == [claim]
    store.begin()
    for number, vote in enumerate(maker.entries[3:], start=3):
        store.apply(number, vote)
    assert store.claim_state(claim).votes == {}
    assert (store.verdict(claim).outcome, store.verdict(claim).members) == (None, ())
    store.commit()
    assert len(store.claim_state(claim).votes) == 3
    assert store.verdict(claim).outcome is Outcome.VERIFIED
    store.close()


def test_a_withdrawal_shows_when_it_is_durable(tmp_path: Path, maker: LedgerMaker):
    store, claim = make(tmp_path / "ledger.db", maker), maker.ledger.claims()[0]
    order(store, *maker.entries[1:])
    maker.withdraw("alice", claim)
    store.begin()
    store.apply(store.applied_index + 1, maker.entries[-1])
    assert store.claim_state(claim).withdrawal is None
    assert store.verdict(claim).outcome is Outcome.VERIFIED
    store.commit()
    assert store.claim_state(claim).withdrawal
    assert store.verdict(claim).reason == "withdrawn"
    store.close()


@pytest.mark.long
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    commands=st.lists(st.one_of(st.integers(0, 5), st.none(), st.binary(max_size=20)), max_size=20),
    batch=st.integers(1, 5),
)
def test_any_order_of_commands_gives_the_tree_that_an_auditor_computes(
    tmp_path_factory: pytest.TempPathFactory, maker: LedgerMaker, commands: list[int | bytes | None], batch: int
):
    path = tmp_path_factory.mktemp("any") / "ledger.db"
    store = make(path, maker)
    spelled = [maker.entries[c] if isinstance(c, int) else c for c in commands]
    for start in range(0, len(spelled), batch):
        order(store, *spelled[start : start + batch])
    expected = replayed(store.entries(0, store.size))
    assert store.root(store.size) == expected.root_at(store.size)
    store.close()
    again = Store(path)
    assert (again.size, again.applied_index) == (expected.size, len(commands))
    again.close()


@pytest.mark.parametrize("index", [0, 2, 5])
def test_a_flipped_bit_in_an_entry_is_refused_by_its_index(path: Path, maker: LedgerMaker, index: int):
    entry = bytearray(maker.entries[index])
    entry[len(entry) // 2] ^= 1
    edit(path, "UPDATE entries SET entry = ? WHERE position = ?", bytes(entry), index)
    with pytest.raises(InconsistentStateError, match=rf"ledger\.db: entry {index} .*rebuild"):
        Store(path)


def test_an_entry_whose_recorded_time_was_changed_is_refused(path: Path, maker: LedgerMaker):
    entry = Entry.decode(maker.entries[1])
    forged = Entry(entry.envelope, entry.recorded_s - 100).encode()
    edit(path, "UPDATE entries SET entry = ? WHERE position = 1", forged)
    with pytest.raises(InconsistentStateError, match="entry 1 is not the one whose hash was stored"):
        Store(path)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM entries WHERE position = 5",
        "DELETE FROM entries WHERE position = 2",
        "DELETE FROM entries",
        "DELETE FROM nodes WHERE level = 1 AND position = 1",
        "UPDATE nodes SET digest = zeroblob(32) WHERE level = 2",
        "INSERT INTO nodes VALUES (7, 7, zeroblob(32))",
        "DELETE FROM raft",
        "UPDATE entries SET entry = 'text' WHERE position = 3",
        "PRAGMA user_version = 7",
    ],
)
def test_a_file_that_contradicts_itself_is_refused(path: Path, statement: str):
    edit(path, statement)
    with pytest.raises(InconsistentStateError):
        Store(path)


def test_a_damaged_page_is_refused(path: Path):
    raw = bytearray(path.read_bytes())
    raw[4096 + 8 : 4096 + 200] = bytes(192)
    path.write_bytes(raw)
    with pytest.raises(InconsistentStateError):
        Store(path)


@pytest.mark.parametrize("content", [None, b"", b"not a database, and long enough to be one" * 10])
def test_a_missing_or_foreign_file_is_refused(tmp_path: Path, content: bytes | None):
    if content is not None:
        (tmp_path / "ledger.db").write_bytes(content)
    with pytest.raises(InconsistentStateError, match=r"ledger\.db"):
        Store(tmp_path / "ledger.db")


def test_only_a_genesis_makes_a_store_and_never_over_another(path: Path, tmp_path: Path, maker: LedgerMaker):
    with pytest.raises(ValueError, match="not a genesis"):
        Store.create(tmp_path / "new.db", genesis_entry=maker.entries[1])
    assert not (tmp_path / "new.db").exists()
    with pytest.raises(FileExistsError):
        Store.create(path, genesis_entry=maker.entries[0])


def test_reading_beyond_the_end_is_empty_or_an_error(path: Path):
    store = Store(path)
    assert store.entries(6, 10) == []
    with pytest.raises(ValueError, match="no entry 6"):
        store.entry(6)
    with pytest.raises(InconsistentStateError):
        store.read_node(0, 6)
    assert store.find(b"\0" * 32) is None
    assert store.claim_state(b"\0" * 32) is None
    store.close()


def test_the_tree_is_stored_as_the_library_computes_it(path: Path, maker: LedgerMaker):
    store = Store(path)
    proof = merkle.inclusion_proof(3, 6, store.read_node)
    digest = merkle.leaf_hash(maker.entries[3])
    merkle.verify_inclusion(digest, index=3, size=6, proof=proof, root=store.root(6))
    store.close()
