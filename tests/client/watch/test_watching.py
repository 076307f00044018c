"""Promises: every entry behind the cursor is told, proven; what a node hides or invents is not taken; none is lost."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from damage import with_flipped_bit

from client.api import open_ledger
from client.errors import InputError
from client.memory import Memory
from client.transport import Timing
from client.watch.cursor import Cursor
from client.watch.events import Event
from client.watch.telling import Step
from client.watch.watched import Watched
from client.watch.watching import Pace, watch
from registry import merkle, tiles
from registry.errors import ConsistencyError, QuorumError


@pytest.fixture
def steps(ledger, tmp_path: Path) -> Callable[..., list[Step]]:
    """Watch until the newest checkpoint; the steps."""

    def look(watched: Watched | None = None, cursor: Cursor | None = None, **more: object) -> list[Step]:
        async def run() -> list[Step]:
            memory = Memory(tmp_path / "ledgers")
            async with open_ledger(ledger.trust, Timing(patience_s=0.2)) as api:
                steps = watch(api, memory, watched or Watched(), cursor, pace=Pace(once=True), **more)
                async with aclosing(steps):
                    return [step async for step in steps]

        return asyncio.run(run())

    return look


def indexes(steps: list[Step]) -> list[int | None]:
    return [event.index for event in events(steps)]


def events(steps: list[Step]) -> list[Event]:
    return [event for step in steps for event in step.events]


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 600])
def test_every_entry_is_told_once_and_in_order(ledger, steps, size):
    ledger.grow(size - 1)

    found = steps(start=0)

    assert indexes(found) == list(range(size))
    assert found[-1].cursor.index == size
    assert found[-1].cursor.frontier.root() == ledger.checkpoint(size).root


def test_a_long_way_is_gone_in_stretches_each_of_which_is_proven(ledger, steps, monkeypatch):
    ledger.grow(700)
    monkeypatch.setattr("client.watch.watching.STRETCH_BYTES_MAX", 1)

    assert indexes(steps(start=3)) == list(range(3, 701))


def test_who_begins_without_a_place_begins_behind_the_newest_checkpoint(ledger, steps):
    ledger.grow(4)

    begun = steps()
    ledger.grow(2)
    later = steps(cursor=begun[-1].cursor)

    assert (indexes(begun), begun[0].cursor.index) == ([], 5)
    assert indexes(later) == [5, 6]


def test_a_cursor_goes_on_where_it_was_kept(ledger, steps):
    ledger.grow(300)
    found = steps(start=250)

    again = steps(cursor=found[20].cursor)

    assert found[20].cursor.index == 270
    assert indexes(again) == list(range(270, 301))


def test_the_beginning_behind_the_end_of_the_ledger_is_refused(steps):
    with pytest.raises(InputError, match=r"--from\) 2: the ledger has 1 entries"):
        steps(start=2)


def test_ids_of_events_are_the_same_each_time_and_different_from_each_other(ledger, steps):
    ledger.grow(5)

    once, again = (events(steps(start=0)) for _ in range(2))

    assert [event.id for event in once] == [event.id for event in again]
    assert len({event.id for event in once}) == 6


def bundle(raw: list[bytes]) -> bytes:
    return tiles.entry_bundle(raw)


LIES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "leaves one out": lambda raw: [*raw[:2], *raw[3:]],
    "tells one twice in another's place": lambda raw: [*raw[:2], raw[1], *raw[3:]],
    "changes a byte": lambda raw: [*raw[:2], with_flipped_bit(raw[2]), *raw[3:]],
    "has another order": lambda raw: [raw[0], raw[2], raw[1], *raw[3:]],
}


@pytest.mark.parametrize("lie", LIES)
def test_what_one_node_hides_or_changes_another_shows_and_the_liar_is_named(ledger, steps, lie):
    ledger.grow(4)
    ledger.nodes[0].answers["/tile/entries/000.p/5"] = bundle(LIES[lie](ledger.raw))
    warnings: list[str] = []

    assert indexes(steps(start=0, warn=warnings.append)) == [0, 1, 2, 3, 4]
    if lie != "leaves one out":  # which is no bundle of that width at all
        assert [ledger.nodes[0].url in warning for warning in warnings] == [True]


@pytest.mark.parametrize("lie", [lie for lie in LIES if lie != "leaves one out"])
def test_entries_that_no_node_shows_as_they_were_attested_are_an_alarm(ledger, steps, lie):
    ledger.grow(4)
    begun = steps()
    ledger.grow(4)
    for node in ledger.nodes:
        raw = ledger.raw[5:]
        node.answers["/tile/entries/000.p/9"] = bundle([*ledger.raw[:5], *LIES[lie](raw)])

    with pytest.raises(ConsistencyError) as alarm:
        steps(cursor=begun[-1].cursor)

    assert alarm.value.code == "entries"


def test_entries_that_no_node_gives_are_waited_for(ledger, steps):
    ledger.grow(4)
    begun = steps()
    ledger.grow(1)
    for node in ledger.nodes:
        node.answers["/tile/entries/000.p/6"] = bundle(ledger.raw[:5])

    with pytest.raises(QuorumError, match="no node gives the entries from 5 to 6"):
        steps(cursor=begun[-1].cursor)


def test_a_fork_is_an_alarm_and_nothing_of_it_is_told(ledger, steps):
    ledger.grow(4)
    begun = steps()
    ledger.rewrite(2)
    ledger.grow(3)

    with pytest.raises(ConsistencyError, match="does not continue"):
        steps(cursor=begun[-1].cursor)


def test_a_cursor_knows_another_past_when_the_memory_is_gone(ledger, steps, tmp_path):
    ledger.grow(4)
    begun = steps()
    ledger.rewrite(2)
    ledger.grow(3)
    for path in (tmp_path / "ledgers").iterdir():
        path.unlink()

    with pytest.raises(ConsistencyError) as alarm:
        steps(cursor=begun[-1].cursor)

    assert alarm.value.code == "cursor"


def test_a_cursor_of_another_tree_is_no_cursor(ledger, steps):
    ledger.grow(4)
    begun = steps()[-1].cursor
    with pytest.raises(ValueError, match="not the edge"):
        replace(begun, index=4)
    forged = replace(begun, edge=tuple(bytes(32) for _ in begun.edge))
    ledger.grow(1)

    with pytest.raises(ConsistencyError):
        steps(cursor=forged)


def test_nodes_that_are_behind_the_cursor_are_no_end(ledger, steps):
    ledger.grow(4)
    begun = steps()
    for node in ledger.nodes[1:]:
        node.down = True
    ledger.nodes[0].behind = 2

    with pytest.raises(QuorumError, match="behind"):
        steps(cursor=begun[-1].cursor)


def test_an_entry_that_breaks_its_form_is_an_alarm_though_a_quorum_attests_it(ledger, steps):
    begun = steps()
    ledger.raw.append(b"no entry")
    ledger.replay.tree.append(merkle.leaf_hash(b"no entry"))

    with pytest.raises(ConsistencyError, match="entry 1, which a quorum of the nodes attests, is none"):
        steps(cursor=begun[-1].cursor)
