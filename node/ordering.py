"""Putting messages into Raft's order, until their outcomes are known here.

Raft's own answers are not relied on: a lost message is never answered, and a lying peer could answer for another
entry. A message has its outcome when this node has applied it, found by the message's hash; proposing it again is
harmless, since the rulebook names the first index of a message it knows.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypeAlias

from node.errors import UnavailableError
from node.logs import fields
from node.raft.types import LEADER_CHANGED, NO_LEADER, TOO_LARGE, OnFailed
from node.store import Store
from registry.entry import Entry
from registry.errors import MalformedError, RefusedError
from registry.rules import Accepted, Applied

PROPOSE_AGAIN_S = 3.0
RETRY_S = 0.1

Failure: TypeAlias = MalformedError | RefusedError | UnavailableError
FAILURES = (MalformedError, RefusedError, UnavailableError)

logger = logging.getLogger(__name__)


class Proposer(Protocol):
    """What orders commands: node.raft.RaftService."""

    def propose(self, command: bytes, on_failed: OnFailed) -> None:
        """Put a command into the order; on_failed(reason) from any thread if it surely or perhaps fails."""
        ...


class Ordering:
    """The messages that wait for their outcomes, in the event loop.

    Args:
        store: where outcomes are found.
        now_s: the time at which a message is recorded, POSIX seconds.
    """

    def __init__(self, store: Store, now_s: Callable[[], int]) -> None:
        self._store, self._now_s = store, now_s
        self._proposer: Proposer | None = None
        self._waiting: dict[bytes, set[asyncio.Future[Applied]]] = {}

    def start(self, proposer: Proposer) -> None:
        """Propose to this one from now on."""
        self._proposer = proposer

    @property
    def waiting(self) -> int:
        """Messages that were proposed and whose outcome is not known yet."""
        return len(self._waiting)

    def tell(self, applied: Applied) -> None:
        """Tell who waits for it what became of a message."""
        for future in self._waiting.get(applied.message_hash or b"", ()):
            if not future.done():
                future.set_result(applied)

    async def order(self, envelopes: Mapping[bytes, bytes], timeout_s: float) -> dict[bytes, Applied | Failure]:
        """Propose messages, by their hashes, until each outcome is known here or the time is over."""
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + timeout_s
        late = UnavailableError("the entry was not applied in time; submit it again", code="timeout")
        outcomes: dict[bytes, Applied | Failure] = {}
        problems: dict[bytes, Failure] = dict.fromkeys(envelopes, late)
        while True:
            left = {digest: envelope for digest, envelope in envelopes.items() if digest not in outcomes}
            for digest, heard in (await self._propose(left, deadline_s - clock())).items():
                if not isinstance(heard, UnavailableError) or heard.code not in {NO_LEADER, LEADER_CHANGED}:
                    outcomes[digest] = heard
                elif heard.code == NO_LEADER:  # otherwise the outcome is unknown: a timeout
                    problems[digest] = heard
            if len(outcomes) == len(envelopes) or clock() + RETRY_S >= deadline_s:
                return problems | outcomes
            await asyncio.sleep(RETRY_S)

    async def _propose(self, envelopes: Mapping[bytes, bytes], wait_s: float) -> dict[bytes, Applied | Failure]:
        """Propose messages once; return what was heard of them in the time, PROPOSE_AGAIN_S at the most."""
        futures = {digest: self._propose_one(envelope, digest) for digest, envelope in envelopes.items()}
        try:
            _, unheard = await asyncio.wait(futures.values(), timeout=min(wait_s, PROPOSE_AGAIN_S))
        finally:
            for digest, future in futures.items():
                self._forget(digest, future)
        if unheard:
            logger.info("not applied in time", extra=fields(messages=len(unheard)))
        return {digest: _heard(future) for digest, future in futures.items() if future not in unheard}

    def _propose_one(self, envelope: bytes, digest: bytes) -> "asyncio.Future[Applied]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Applied] = loop.create_future()
        placed = self._store.find(digest)
        if placed is not None:
            future.set_result(Accepted(placed.index, digest))
        elif self._proposer is None:
            _fail(future, NO_LEADER)
        else:
            self._waiting.setdefault(digest, set()).add(future)
            command = Entry(envelope, self._now_s()).encode()
            self._proposer.propose(command, lambda reason: _soon(loop, _fail, future, reason))
        return future

    def _forget(self, digest: bytes, future: "asyncio.Future[Applied]") -> None:
        if not future.cancel() and not future.cancelled():
            future.exception()  # marks it as seen: whoever waited may have gone away
        waiting = self._waiting.get(digest, set())
        waiting.discard(future)
        if not waiting:
            self._waiting.pop(digest, None)


def _soon(
    loop: asyncio.AbstractEventLoop,
    callback: Callable[["asyncio.Future[Applied]", str], None],
    future: "asyncio.Future[Applied]",
    reason: str,
) -> None:
    """Call back in the loop's thread; a loop that is closed has nobody waiting."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, future, reason)


def _heard(future: "asyncio.Future[Applied]") -> Applied | Failure:
    try:
        return future.result()
    except FAILURES as error:
        return error


def _fail(future: "asyncio.Future[Applied]", reason: str) -> None:
    if future.done():
        return
    if reason == TOO_LARGE:
        future.set_exception(MalformedError("the entry is larger than an entry may be", code="too_large"))
    else:
        future.set_exception(UnavailableError(f"the entry was not ordered: {reason}", code=reason))
