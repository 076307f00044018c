"""Pages of the log: every entry is on one of them, in its order, however rare its kind is."""

from collections.abc import Callable

import pytest
from fakes import LedgerMaker

from node.explorer import window
from registry.entry import Placed


class Log:
    """What a page is made of: a size and the entries of a range, as a store has them."""

    def __init__(self, publications: int) -> None:
        maker = LedgerMaker()
        for number in range(publications):
            maker.publish("alice", number=number)
            if number == 2:
                maker.withdraw("alice", maker.ledger.placed(1, 2)[0].signed.hash)
        self._ledger, self.size = maker.ledger, maker.ledger.size

    def placed_between(self, start: int, stop: int) -> list[Placed]:
        assert 0 <= start <= stop <= self.size
        return self._ledger.placed(start, stop)


@pytest.fixture(scope="module")
def log() -> Log:
    return Log(20)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "PAGE_ENTRIES", 4)
    monkeypatch.setattr(window, "_STEP", 3)


def indexes(shown: window.Window) -> list[int]:
    return [placed.index for placed in shown.entries]


def flat(pages: list[list[int]]) -> list[int]:
    return [index for page in pages for index in page]


def walked(shown: window.Window, on: Callable[[window.Window], window.Window | None]) -> list[list[int]]:
    pages, left = [], 100
    current: window.Window | None = shown
    while current is not None and left:
        pages.append(indexes(current))
        current, left = on(current), left - 1
    return pages


def test_downwards_every_entry_is_on_one_page(log: Log):
    found = walked(
        window.before(log, log.size, None),
        lambda shown: None if shown.older is None else window.before(log, shown.older, None),
    )
    assert flat(found) == list(range(log.size))[::-1]
    assert {len(page) for page in found[:-1]} == {4}


def test_upwards_every_entry_is_on_a_page_and_the_last_one_is_full(log: Log):
    found = walked(
        window.since(log, 0, None),
        lambda shown: None if shown.newer is None else window.since(log, shown.newer, None),
    )
    assert set(flat(found)) == set(range(log.size))
    assert found[0] == [3, 2, 1, 0]
    assert found[-1] == [log.size - 1 - place for place in range(4)]


def test_a_rare_kind_is_found_across_the_limit_of_what_one_page_looks_at(log: Log, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(window, "LOOKED_AT_MAX", 5)
    found = walked(
        window.before(log, log.size, "withdraw"),
        lambda shown: None if shown.older is None else window.before(log, shown.older, "withdraw"),
    )
    assert flat(found) == [4]
    assert len(found) == -(-log.size // 5)
    upwards = window.since(log, 0, "withdraw")
    assert (indexes(upwards), upwards.start, upwards.stop) == ([4], 0, 5)


def test_beyond_the_end_and_before_the_beginning_there_is_nothing(log: Log):
    assert indexes(window.before(log, 0, None)) == []
    assert indexes(window.before(log, 10**9, None)) == [log.size - 1 - place for place in range(4)]
    assert indexes(window.since(log, log.size, None)) == [log.size - 1 - place for place in range(4)]
    assert window.before(log, 0, None).older is None
