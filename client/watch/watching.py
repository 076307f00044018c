"""Following a ledger's new entries, without believing any node (DESIGN 8: watch).

Each look asks all nodes for their checkpoints, takes the largest that the policy vouches for, and checks that it
continues the one that was seen last (`client.continuity`). The entries between the cursor and its size are fetched from
one node after the other until one gives those that the checkpoint's root is made of: appended to the tree that the
cursor holds the edge of, they lead to that root or, in a stretch of a long way, to one that the nodes' tiles prove to
be on the way to it. So no node can leave an entry out, change one or show another past: what does not lead there is no
entry of the log.

What a step found is handed over together with the cursor behind it. Whoever keeps the cursor only when the events were
taken loses none, whenever he is killed, and may be told the last ones again.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from client.api import Api, SeenCheckpoint
from client.continuity import check_consistent, check_latest, fetch_frontier, tile_width
from client.errors import InputError
from client.memory import Memory
from client.watch.cursor import Cursor
from client.watch.telling import Step, Teller, Warn
from client.watch.watched import Watched
from registry import merkle, tiles
from registry.checkpoint import Checkpoint
from registry.errors import ConsistencyError, QuorumError, RegistryError

STRETCH_BYTES_MAX = 4 * 2**20  # of entries in memory at a time, and one bundle more


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often to look.

    Attributes:
        interval_s: between two looks at the newest checkpoint, once all entries of the last one were read.
        once: end there instead of looking again.
    """

    interval_s: float = 10.0
    once: bool = False


async def watch(  # noqa: PLR0913 (whom, what, from where and how)
    api: Api,
    memory: Memory,
    watched: Watched,
    cursor: Cursor | None = None,
    *,
    start: int | None = None,
    pace: Pace | None = None,
    warn: Warn = lambda _text: None,
) -> AsyncGenerator[Step, None]:
    """Yield what the log holds behind a cursor, step by step, and then whatever is added.

    Args:
        api: the ledger.
        memory: what this reader saw of it before.
        watched: what to tell of.
        cursor: the last one that was kept; None to begin.
        start: where to begin without one: the index of the first entry; None for the end of the newest checkpoint.
        pace: how often to look.
        warn: is told of nodes that lie, and of what else is no event.

    Yields:
        Steps, of which the first may hold no event: whoever begins keeps that cursor too, or begins anew next time.

    Raises:
        ConsistencyError: an alarm: the ledger does not continue what was seen, or is not what its checkpoints state.
        QuorumError: too few nodes answer. To go on later, call again with the last cursor.
        InputError: start is behind the end of the ledger.
    """
    pace = pace or Pace()
    if cursor is None:
        cursor = await first_cursor(api, memory, start)
        yield Step(events=(), cursor=cursor)
    if cursor.origin != api.trust.origin:
        raise ValueError(f"a cursor in {cursor.origin}, and nodes of {api.trust.origin}")
    reader, teller = _Reader(api, warn), Teller(api, watched, cursor, warn)
    while True:
        seen = await check_latest(api, memory)
        while seen is not None and cursor.index < seen.size:
            entries = await reader.read(cursor, seen)
            async with aclosing(teller.tell(entries, cursor, seen.trusted.checkpoint)) as steps:
                async for step in steps:
                    cursor = step.cursor
                    yield step
        if pace.once:
            _check_not_behind(cursor, seen)
            return
        await asyncio.sleep(pace.interval_s)


async def first_cursor(api: Api, memory: Memory, start: int | None) -> Cursor:
    """Where to begin, as `watch` does without a cursor; raises as it does."""
    seen = await check_latest(api, memory)
    if seen is None:
        raise QuorumError("the nodes that answer are behind what was seen before", code="behind")
    if start is not None and start > seen.size:
        raise InputError(f"start (--from) {start}: the ledger has {seen.size} entries")
    index = seen.size if start is None else start
    frontier = await fetch_frontier(api, index, seen.trusted.checkpoint)
    return Cursor(origin=api.trust.origin, index=index, edge=frontier.edge)


def _check_not_behind(cursor: Cursor, seen: SeenCheckpoint | None) -> None:
    if seen is None or seen.size < cursor.index:
        raise QuorumError(
            f"the nodes that answer are behind entry {cursor.index}, which was seen before", code="behind"
        )


class _Reader:
    """Fetches entries from the nodes and proves them."""

    def __init__(self, api: Api, warn: Warn) -> None:
        self._api, self._warn = api, warn
        self._preferred = 0

    async def read(self, cursor: Cursor, seen: SeenCheckpoint) -> list[bytes]:
        """The entries behind a cursor, as many as go into memory.

        Raises:
            ConsistencyError: nodes give others than those of the checkpoint's tree, and none gives these.
            QuorumError: no node gives them.
        """
        urls, problems = self._api.transport.urls, dict[str, RegistryError]()
        for turn in range(len(urls)):
            url = urls[(self._preferred + turn) % len(urls)]
            try:
                entries = await self._read_from(url, cursor, seen.trusted.checkpoint)
            except RegistryError as error:
                problems[url] = error
                if isinstance(error, ConsistencyError):
                    self._warn(f"{url} gives entries that are not the log's: {error}")
            else:
                self._preferred = urls.index(url)
                return entries
        raise await self._failure(cursor, seen.trusted.checkpoint, problems)

    async def _read_from(self, url: str, cursor: Cursor, target: Checkpoint) -> list[bytes]:
        frontier, entries, bytes_read = cursor.frontier, list[bytes](), 0
        while frontier.size < target.size and bytes_read < STRETCH_BYTES_MAX:
            number, place = divmod(frontier.size, tiles.TILE_WIDTH)
            bundle = await self._api.entry_bundle_of(url, number, width=tile_width(0, number, target.size))
            for entry in bundle[place:]:
                frontier.append(merkle.leaf_hash(entry))
                entries.append(entry)
                bytes_read += len(entry)
        reached = Checkpoint(origin=target.origin, size=frontier.size, root=frontier.root())
        if reached.size == target.size and reached.root != target.root:
            raise ConsistencyError(f"they do not lead to the root of the checkpoint of size {target.size}")
        await check_consistent(self._api, reached, target)
        return entries

    async def _failure(
        self, cursor: Cursor, target: Checkpoint, problems: dict[str, RegistryError]
    ) -> ConsistencyError | QuorumError:
        """What it means that no node gives the entries; raises what a look at the cursor itself finds."""
        details = "; ".join(f"{url}: {error}" for url, error in problems.items())
        if not any(isinstance(error, ConsistencyError) for error in problems.values()):
            message = f"no node gives the entries from {cursor.index} to {target.size}: {details}"
            return QuorumError(message, code="unavailable")
        before = Checkpoint(origin=cursor.origin, size=cursor.index, root=cursor.frontier.root())
        try:
            await check_consistent(self._api, before, target)
        except ConsistencyError as error:
            message = f"the log does not continue the {cursor.index} entries that this cursor has passed: {error}"
            return ConsistencyError(message, code="cursor")
        message = f"no node gives the entries that the checkpoint of size {target.size} states: {details}"
        return ConsistencyError(message, code="entries")
