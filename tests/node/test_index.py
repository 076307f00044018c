"""The search index follows the ledger, and is made anew from it whenever it does not fit."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from fakes import LedgerMaker, binding, public_key

from node import index as index_module
from node.index import Index
from node.rising import RisingCount
from node.store import Store


@pytest.fixture
def maker() -> LedgerMaker:
    maker = LedgerMaker()
    maker.verified_claim()
    return maker


@pytest.fixture
def store(tmp_path: Path, maker: LedgerMaker) -> Store:
    Store.create(tmp_path / "ledger.db", genesis_entry=maker.entries[0])
    store = Store(tmp_path / "ledger.db")
    order(store, *maker.entries[1:])
    yield store
    store.close()


def order(store: Store, *commands: bytes) -> None:
    store.begin()
    for command in commands:
        store.apply(store.applied_index + 1, command)
    store.commit()


def filled(path: Path, store: Store) -> Index:
    """An index of the whole ledger."""
    index = Index(path, store)
    while index.add_batch() < store.size:
        pass
    return index


def everything(index: Index, value: bytes, *, is_signer: bool = False) -> list[tuple[int, list[str]]]:
    return index.find(value, is_signer=is_signer, start=0, limit=100)


def test_a_value_is_found_where_it_stands_and_as_what(tmp_path: Path, store: Store, maker: LedgerMaker):
    index, claim = filled(tmp_path / "search.db", store), maker.ledger.claims()[0]
    assert everything(index, claim) == [(2, ["message"]), (3, ["claim"]), (4, ["claim"]), (5, ["claim"])]
    assert everything(index, maker.committed("alice").key) == [(1, ["key_commitment"]), (2, ["key_commitment"])]
    assert everything(index, binding("alice").watermark_key) == [(2, ["watermark_key"])]
    assert everything(index, b"?" * 32) == []
    index.close()


def test_owners_and_hashes_are_apart(tmp_path: Path, store: Store, maker: LedgerMaker):
    index = filled(tmp_path / "search.db", store)
    assert everything(index, public_key("alice"), is_signer=True) == [(1, ["signer"]), (2, ["signer"])]
    assert everything(index, public_key("alice")) == []
    assert everything(index, maker.ledger.claims()[0], is_signer=True) == []
    assert everything(index, public_key("node-1/signing"), is_signer=True) == [(0, ["signer"]), (3, ["signer"])]
    index.close()


def test_the_log_is_searched_from_an_index_on_and_so_many_at_a_time(tmp_path: Path, store: Store, maker: LedgerMaker):
    index, claim = filled(tmp_path / "search.db", store), maker.ledger.claims()[0]
    assert [found for found, _ in index.find(claim, is_signer=False, start=3, limit=2)] == [3, 4]
    assert index.find(claim, is_signer=False, start=6, limit=2) == []
    index.close()


def test_values_that_share_a_number_are_told_apart(tmp_path: Path, store: Store, maker: LedgerMaker, monkeypatch):
    monkeypatch.setattr(Index, "_number", lambda _self, _value, *, is_signer: int(is_signer))
    index, claim = filled(tmp_path / "search.db", store), maker.ledger.claims()[0]
    assert everything(index, b"?" * 32) == []
    assert [found for found, _ in index.find(claim, is_signer=False, start=0, limit=2)] == [2, 3]
    assert [found for found, _ in index.find(claim, is_signer=False, start=4, limit=2)] == [4, 5]
    assert everything(index, public_key("alice"), is_signer=True) == [(1, ["signer"]), (2, ["signer"])]
    index.close()


def test_the_numbers_of_two_indexes_differ_so_that_nobody_can_make_them_coincide(tmp_path: Path, store: Store):
    numbers = []
    for name in ("one.db", "other.db"):
        filled(tmp_path / name, store).close()
        with sqlite3.connect(tmp_path / name) as connection:
            numbers.append({number for (number,) in connection.execute("SELECT number FROM terms")})
        connection.close()
    assert len(numbers[0]) == len(numbers[1]) > 10
    assert numbers[0].isdisjoint(numbers[1])


def test_an_index_goes_on_where_it_stopped(tmp_path: Path, store: Store, maker: LedgerMaker, monkeypatch):
    monkeypatch.setattr(index_module, "BATCH_ENTRIES", 2)
    first = Index(tmp_path / "search.db", store)
    assert [first.add_batch(), first.add_batch()] == [2, 4]
    first.close()
    again = Index(tmp_path / "search.db", store)
    assert again.indexed.value == 4
    assert [again.add_batch(), again.add_batch()] == [6, 6]
    assert len(everything(again, maker.ledger.claims()[0])) == 4
    again.close()


@pytest.mark.parametrize(
    "damage",
    [
        "PRAGMA user_version = 0",
        "PRAGMA user_version = 99",
        "DROP TABLE terms",
        "DELETE FROM covered",
        "UPDATE covered SET size = 1000",
        "UPDATE covered SET root = zeroblob(32)",
        "UPDATE covered SET salt = x'00'",
        "UPDATE covered SET salt = '0123456789abcdef0123456789abcdef'",
        None,
    ],
)
def test_an_index_that_does_not_fit_is_made_anew(tmp_path: Path, store: Store, maker: LedgerMaker, damage: str | None):
    path = tmp_path / "search.db"
    filled(path, store).close()
    if damage is None:
        path.write_bytes(b"not a database" * 100)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute(damage)
        connection.close()
    index = filled(path, store)
    assert len(everything(index, maker.ledger.claims()[0])) == 4
    assert store.size == 6
    index.close()


def test_a_ledger_of_a_node_that_had_no_index_is_indexed_whole(tmp_path: Path, store: Store):
    assert not (tmp_path / "search.db").exists()
    index = Index(tmp_path / "search.db", store)
    assert index.indexed.value == 0

    async def follow() -> None:
        applied = RisingCount(store.size)
        task = asyncio.create_task(index.run(applied))
        assert await index.reach(store.size, 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(follow())
    index.close()


async def test_entries_gather_while_nobody_searches_and_a_search_does_not_wait_for_that(
    tmp_path: Path, store: Store, maker: LedgerMaker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(index_module, "GATHERING_S", 60.0)
    index, applied = Index(tmp_path / "search.db", store), RisingCount(0)
    task = asyncio.create_task(index.run(applied))
    assert await index.reach(store.size, 30)
    maker.publish("bob")
    order(store, maker.entries[-1])
    applied.raise_to(store.size)
    assert not await index.indexed.wait_for(store.size, 0.1)
    assert await index.reach(store.size, 30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    index.close()


async def test_what_is_applied_later_is_found_and_a_full_disk_only_delays_it(
    tmp_path: Path, store: Store, maker: LedgerMaker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(index_module, "TROUBLE_AGAIN_S", 0.01)
    index, applied = Index(tmp_path / "search.db", store), RisingCount(store.size)
    right, failures = index.add_batch, [sqlite3.OperationalError("disk is full")] * 3

    def add_batch() -> int:
        if failures:
            assert index.trouble is None or "full" in index.trouble
            raise failures.pop()
        return right()

    index.add_batch = add_batch
    task = asyncio.create_task(index.run(applied))
    assert await index.reach(6, 30)
    maker.publish("bob")
    order(store, maker.entries[-1])
    applied.raise_to(store.size)
    assert await index.reach(7, 30)
    assert everything(index, public_key("bob"), is_signer=True) == [(6, ["signer"])]
    assert index.trouble is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    index.close()
