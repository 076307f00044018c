"""A page of the log, the newest entries first, of one kind or of all.

There is no index of kinds. A page of a rare one looks through a limited part of the log, says how far it has looked,
and leads on from there.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from node.store import Store
from registry.entry import Placed

PAGE_ENTRIES = 50
LOOKED_AT_MAX = 10_000  # entries for one page
_STEP = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Some entries of the log.

    Attributes:
        entries: the newest first.
        start, stop: the part of the log that was looked through, [start, stop).
        size: of the log.
    """

    entries: tuple[Placed, ...]
    start: int
    stop: int
    size: int

    @property
    def older(self) -> int | None:
        """Where the next page ends, exclusive; None on the last one."""
        return self.start if self.start > 0 else None

    @property
    def newer(self) -> int | None:
        """Where the page before begins, inclusive; None on the first one."""
        return self.stop if self.stop < self.size else None


def before(store: Store, stop: int, kind: str | None) -> Window:
    """The newest entries below an index."""
    size = store.size
    stop = min(stop, size)
    found, start = _take(_downwards(store, stop), kind)
    return Window(entries=tuple(found), start=stop if start is None else start, stop=stop, size=size)


def since(store: Store, start: int, kind: str | None) -> Window:
    """The oldest entries from an index on; the newest of all where those would not fill a page."""
    size = store.size
    found, last = _take(_upwards(store, start, size), kind)
    if last is None or (last + 1 == size and len(found) < PAGE_ENTRIES):
        return before(store, size, kind)
    return Window(entries=tuple(reversed(found)), start=start, stop=last + 1, size=size)


def _take(entries: Iterable[Placed], kind: str | None) -> tuple[list[Placed], int | None]:
    """A page's worth of a kind, and the index at which the search ended; None if there was nothing to look at."""
    found: list[Placed] = []
    at = None
    for looked_at, placed in enumerate(entries, start=1):
        at = placed.index
        if kind in (None, placed.signed.message.KIND):
            found.append(placed)
        if len(found) == PAGE_ENTRIES or looked_at == LOOKED_AT_MAX:
            break
    return found, at


def _downwards(store: Store, stop: int) -> Iterator[Placed]:
    while stop > 0:
        start = max(0, stop - _STEP)
        yield from reversed(store.placed_between(start, stop))
        stop = start


def _upwards(store: Store, start: int, size: int) -> Iterator[Placed]:
    while start < size:
        stop = min(start + _STEP, size)
        yield from store.placed_between(start, stop)
        start = stop
