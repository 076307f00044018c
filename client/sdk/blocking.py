"""The SDK for programs without an event loop: `SyncClient`. Each method waits for the one of `Client` by its name."""

from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator
from os import PathLike
from types import TracebackType
from typing import Any, Self, TypeVar

from client.api import Recorded
from client.following import Followed
from client.log_page import LogLine, LogPage
from client.sdk import INTERVAL_S, PAGE, PATIENCE_S, STRAGGLERS_S, VERDICT_TIMEOUT_S
from client.sdk.inputs import AnyBundle, AnyKey, AnyMessage, AnyPath, AnyPolicy, AnyWatched
from client.sdk.ledger import Client
from client.sdk.loop_thread import LoopThread
from client.sdk.reading import OnChange
from client.sdk.results import ClaimStatus, VerifiedCertificate
from client.searching import Found
from client.suspects import Suspect
from client.watch.cursor import Cursor
from client.watch.telling import Step, Warn
from registry.trust import TrustPolicy

T = TypeVar("T")


class SyncClient:
    """`Client` for programs without an event loop; what the methods take, return and raise stands there.

    Use it as `with SyncClient(...) as ledger:`. Its own event loop runs in a thread, so it may be used by several
    threads, and in a notebook. Called inside of a running event loop it works, but that loop stands still until the
    answer is there, as with any call that blocks: use `Client` there. KeyboardInterrupt cancels the call that waits;
    it may be made again. Callbacks run in the client's thread and must not call the client (RuntimeError).
    """

    def __init__(
        self,
        policy: AnyPolicy,
        *,
        owner: AnyKey | None = None,
        state_directory: AnyPath | None = None,
        patience_s: float = PATIENCE_S,
        ca_file: AnyPath | None = None,
    ) -> None:
        self._client = Client(
            policy, owner=owner, state_directory=state_directory, patience_s=patience_s, ca_file=ca_file
        )
        self._loop: LoopThread | None = None

    def __enter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeError("this client is open already; share it, or make another")
        self._loop = LoopThread()
        try:
            self._run(self._client.__aenter__())
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._run(self._client.__aexit__(kind, error, traceback))
        finally:
            self._close()

    @property
    def trust(self) -> TrustPolicy:
        """Whom this client trusts."""
        return self._client.trust

    def publish(self, bundle: AnyBundle) -> Recorded:
        """Publish the commitments of a bundle and wait for a quorum; see `Client.publish`."""
        return self._run(self._client.publish(bundle))

    def claim(
        self,
        model: AnyPath | Suspect,
        bundle: AnyBundle,
        *,
        sha256: str | None = None,
        watermark: int = 0,
        again: bool = False,
    ) -> Recorded:
        """Claim a model, which reveals the watermark key for good; see `Client.claim`."""
        return self._run(self._client.claim(model, bundle, sha256=sha256, watermark=watermark, again=again))

    def wait_for_verdict(
        self,
        claim: AnyMessage,
        *,
        timeout_s: float = VERDICT_TIMEOUT_S,
        stragglers_s: float = STRAGGLERS_S,
        keep_in: AnyBundle | None = None,
        on_change: OnChange | None = None,
    ) -> ClaimStatus:
        """Wait until a claim has a verdict, and fetch and check what proves it; see `Client.wait_for_verdict`."""
        waiting = self._client.wait_for_verdict(
            claim, timeout_s=timeout_s, stragglers_s=stragglers_s, keep_in=keep_in, on_change=on_change
        )
        return self._run(waiting)

    def status(self, claim: AnyMessage) -> ClaimStatus:
        """How a claim stands now; see `Client.status`."""
        return self._run(self._client.status(claim))

    def certificate(self, claim: AnyMessage, *, keep_in: AnyBundle | None = None) -> VerifiedCertificate:
        """Fetch and check the certificate of a claim; see `Client.certificate`."""
        return self._run(self._client.certificate(claim, keep_in=keep_in))

    def challenge(self, claim: AnyMessage, bundle: AnyBundle, *, reason: str) -> Recorded:
        """Object to somebody else's claim; see `Client.challenge`."""
        return self._run(self._client.challenge(claim, bundle, reason=reason))

    def withdraw(self, message: AnyMessage, *, reason: str) -> Recorded:
        """Take a publication or a claim of one's own back; see `Client.withdraw`."""
        return self._run(self._client.withdraw(message, reason=reason))

    def rotate(self, new_key: AnyKey) -> Recorded:
        """Move from the owner's signing key to another one; see `Client.rotate`."""
        return self._run(self._client.rotate(new_key))

    def show(self, message: AnyMessage) -> Recorded:
        """Show one entry by the hash of its message; see `Client.show`."""
        return self._run(self._client.show(message))

    def search(
        self, value: bytes | str | PathLike[str], *, is_owner: bool = False, start: int = 0, limit: int = PAGE
    ) -> Found:
        """Find the entries that bear a hash, or that an owner signed; see `Client.search`."""
        return self._run(self._client.search(value, is_owner=is_owner, start=start, limit=limit))

    def log(self, *, start: int | None = None, limit: int = PAGE) -> LogPage:
        """A page of the log, by one node's word; see `Client.log`."""
        return self._run(self._client.log(start=start, limit=limit))

    def entries(self, *, start: int = 0) -> Iterator[LogLine]:
        """Every entry of the log from an index on, by one node's word; see `Client.entries`."""
        return self._each(self._client.entries(start=start))

    def follow(self, *, start: int | None = None, last: int = 0) -> Iterator[Followed]:
        """Every entry from an index on, and each new one as it comes; see `Client.follow`."""
        return self._each(self._client.follow(start=start, last=last))

    def watch(  # noqa: PLR0913 (what, from where and how)
        self,
        *what: AnyWatched,
        owners: bytes | str | Iterable[bytes | str] = (),
        kinds: str | Iterable[str] = (),
        with_policy: bool = False,
        cursor: Cursor | None = None,
        start: int | None = None,
        interval_s: float = INTERVAL_S,
        once: bool = False,
        warn: Warn | None = None,
    ) -> Iterator[Step]:
        """What touches something that is yours, from a cursor on and then as it comes; see `Client.watch`."""
        steps = self._client.watch(
            *what,
            owners=owners,
            kinds=kinds,
            with_policy=with_policy,
            cursor=cursor,
            start=start,
            interval_s=interval_s,
            once=once,
            warn=warn,
        )
        return self._each(steps)

    def _each(self, stream: AsyncGenerator[T]) -> Iterator[T]:
        try:
            while True:
                try:
                    yield self._run(_next(stream))
                except _EndError:
                    return
        finally:
            if self._loop is not None:  # else the loop has closed it as well
                self._run(_end(stream))

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("the client is not open; use it as: with SyncClient(...) as ledger")
        return self._loop.run(coroutine)

    def _close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()


class _EndError(Exception):
    """A stream has ended; StopAsyncIteration itself must not leave a coroutine."""


async def _next(stream: AsyncGenerator[T]) -> T:
    try:
        return await anext(stream)
    except StopAsyncIteration:
        raise _EndError from None


async def _end(stream: AsyncGenerator[T]) -> None:
    await stream.aclose()
