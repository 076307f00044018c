"""Reading a ledger: whatever needs no signing key. `client.sdk.ledger.Client` is made of it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AsyncExitStack, aclosing, nullcontext, suppress
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self

from client import verdicts
from client.api import Api, Recorded, open_ledger
from client.claim_state import ClaimState
from client.continuity import check_latest
from client.errors import InputError, PendingError
from client.following import Followed, follow
from client.log_page import LogLine, LogPage
from client.memory import Memory
from client.publishing import finishing, keep_seen
from client.sdk import INTERVAL_S, PAGE, STRAGGLERS_S, VERDICT_TIMEOUT_S
from client.sdk.inputs import (
    PAGE_MAX,
    AnyBundle,
    AnyMessage,
    AnyPath,
    AnyPolicy,
    AnyWatched,
    bundle_of,
    check_page,
    check_range,
    digest_of,
    policy_of,
    sought_of,
    state_of,
    watched_of,
)
from client.sdk.results import ClaimStatus, VerifiedCertificate
from client.searching import Found, Query, search
from client.transport import Timing
from client.watch.cursor import Cursor
from client.watch.telling import Step, Warn
from client.watch.watching import Pace, watch
from registry.certificate import Story
from registry.errors import QuorumError
from registry.trust import TrustPolicy

_PATIENCE_S_MAX = 86_400.0
_INTERVAL_S_MIN, _INTERVAL_S_MAX = 0.1, 86_400.0
OnChange = Callable[[ClaimState], None]


class Reader:
    """A session with the nodes of one ledger that signs nothing; see `Client`, which has its methods."""

    def __init__(
        self, policy: AnyPolicy, *, state_directory: AnyPath | None, patience_s: float, ca_file: AnyPath | None
    ) -> None:
        check_range(patience_s, 0, _PATIENCE_S_MAX, what="patience_s")
        self._trust = policy_of(policy)
        self._memory = Memory.within(state_of(state_directory))
        self._timing, self._ca_file = Timing(patience_s=patience_s), None if ca_file is None else Path(ca_file)
        self._stack = AsyncExitStack()
        self._api: Api | None = None

    async def __aenter__(self) -> Self:
        if self._api is not None:
            raise RuntimeError("this client is open already; share it, or make another")
        opening = open_ledger(self._trust, self._timing, ca_file=self._ca_file)
        self._api = await self._stack.enter_async_context(opening)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._api = None
        await self._stack.aclose()

    @property
    def trust(self) -> TrustPolicy:
        """Whom this client trusts."""
        return self._trust

    @property
    def api(self) -> Api:
        """The calls below this class, for what it does not do; the functions of `client.*` take it.

        Raises:
            RuntimeError: the client is not open.
        """
        if self._api is None:
            raise RuntimeError("the client is not open; use it as: async with Client(...) as ledger")
        return self._api

    async def wait_for_verdict(
        self,
        claim: AnyMessage,
        *,
        timeout_s: float = VERDICT_TIMEOUT_S,
        stragglers_s: float = STRAGGLERS_S,
        keep_in: AnyBundle | None = None,
        on_change: OnChange | None = None,
    ) -> ClaimStatus:
        """Wait until a claim has a verdict, and fetch and check what proves it.

        Args:
            claim: what `claim` returned, or the claim's hash.
            timeout_s: how long to wait for the verdict; 0 asks once.
            stragglers_s: after the verdict, how long to wait for the votes of the other nodes, so that the certificate
                shows every vote.
            keep_in: the bundle into which the certificate is written; that of another claim is never written over.
            on_change: called with each new state.

        Returns:
            The claim with its verdict, whichever that is; `prevails` says whether it was won.

        Raises:
            PendingError: there is no verdict in time, or none that counts; its `state` says how the claim stands.
            RefusedError: code not_found, there is no such claim.
            UnfinishedError: the certificate could not be written; wait again. OSError, if only the hash was given.
        """
        api, digest, tell = self.api, digest_of(claim, what="claim"), on_change or _ignore
        with finishing(claim) if isinstance(claim, Recorded) else nullcontext():
            state = await verdicts.await_verdict(api, digest, timeout_s=timeout_s, on_change=tell)
            if state.outcome is None or not state.confirmed:
                code = "open" if state.outcome is None else "unconfirmed"
                raise PendingError(f"the claim {digest.hex()}: {state.explain()}", state=state, code=code)
            state = await verdicts.await_stragglers(api, state, timeout_s=stragglers_s, on_change=tell)
            certificate = None
            if state.is_certified:
                fetched = await verdicts.await_certificate(api, self._memory, digest)
                certificate = self._kept(*fetched, keep_in)
            older = await verdicts.older_publication(api, self._memory, state)
        return ClaimStatus(state=state, certificate=certificate, older_publication=older)

    async def status(self, claim: AnyMessage) -> ClaimStatus:
        """How a claim stands now; with a verdict that a certificate proves, the certificate as well.

        Raises:
            RefusedError: code not_found, there is no such claim.
        """
        api, digest = self.api, digest_of(claim, what="claim")
        await check_latest(api, self._memory)
        state = await verdicts.ask_state(api, digest)
        certificate = self._kept(*await self._fetched(digest), None) if state.is_certified else None
        older = await verdicts.older_publication(api, self._memory, state) if state.confirmed else None
        return ClaimStatus(state=state, certificate=certificate, older_publication=older)

    async def certificate(self, claim: AnyMessage, *, keep_in: AnyBundle | None = None) -> VerifiedCertificate:
        """Fetch and check the certificate of a claim.

        Args:
            claim: what `claim` returned, or the claim's hash.
            keep_in: the bundle into which it is written; that of another claim is never written over.

        Raises:
            RefusedError: there is none; code open, not_verified, superseded or not_found.
        """
        return self._kept(*await self._fetched(digest_of(claim, what="claim")), keep_in)

    async def show(self, message: AnyMessage) -> Recorded:
        """Show one entry by the hash of its message, from a receipt that was checked.

        Raises:
            RefusedError: code not_found.
        """
        recorded = await self.api.receipt(digest_of(message, what="message"))
        await keep_seen(self.api, self._memory, recorded)
        return recorded

    async def search(
        self, value: bytes | str | PathLike[str], *, is_owner: bool = False, start: int = 0, limit: int = PAGE
    ) -> Found:
        """Find the entries that bear a hash, or that an owner signed; all nodes are asked, and every entry is checked.

        Args:
            value: a hash or a public key, 32 bytes or 64 hexadecimal digits; or a `pathlib.Path`, whose file is hashed;
                or the URL of a prediction endpoint, in any spelling.
            is_owner: it is a public key, whose entries are wanted.
            start: index of the first entry to look at.
            limit: entries to return at most, in [1, 100].

        Returns:
            A page of entries, and whose word it is that there are no others.

        Raises:
            InputError: the value is none of these.
            OSError: the file cannot be read.
        """
        check_page(start, limit)
        digest = await asyncio.to_thread(sought_of, value, is_owner=is_owner)
        query = Query(value=digest, is_owner=is_owner, start=start, limit=limit)
        await self._compare()
        return await search(self.api, query)

    async def log(self, *, start: int | None = None, limit: int = PAGE) -> LogPage:
        """A page of the log, by one node's word.

        Args:
            start: index of its first entry; None for the last page.
            limit: entries in it at most, in [1, 100].
        """
        check_page(start or 0, limit)
        await self._compare()
        first = await self._first(limit) if start is None else start
        return await self.api.entries(start=first, limit=limit)

    async def entries(self, *, start: int = 0) -> AsyncGenerator[LogLine]:
        """Every entry of the log from an index on, by one node's word, page after page; ends with the last one."""
        check_page(start, PAGE_MAX)
        await self._compare()
        following_page: int | None = start
        while following_page is not None:
            page = await self.api.entries(start=following_page, limit=PAGE_MAX)
            for line in page.lines:
                yield line
            following_page = page.following

    async def follow(self, *, start: int | None = None, last: int = 0) -> AsyncGenerator[Followed]:
        """Every entry from an index on, and each new one as it comes, by one node's word; never ends by itself.

        Args:
            start: index of the first entry.
            last: without `start`, how many of the entries that are there already come first, in [0, 100].
        """
        check_range(last, 0, PAGE_MAX, what="last")
        check_page(start or 0, PAGE_MAX)
        await self._compare()
        first = await self._first(last) if start is None else start
        async with aclosing(follow(self.api, first)) as stream:
            async for followed in stream:
                yield followed

    async def watch(  # noqa: PLR0913 (what, from where and how)
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
    ) -> AsyncGenerator[Step]:
        """What touches something that is yours, from a cursor on and then as it comes, by no node's word alone.

        Every entry between two looks is shown to be in the log, and every checkpoint to continue the one before. A
        step has events and the cursor behind them. Keep that when the events are taken, and begin with it next time:
        then none is lost, and at most the last ones are told again, with the same ids. The first step may hold no
        event.

        Args:
            *what: paths of a model's file, which is hashed, or of a directory that was published from, which stands for
                its publication, its model, the models claimed by it, and its publisher's key; URLs of endpoints; hashes
                that an entry may bear, of which text is looked up as a path first and bytes are not; what was recorded.
                Without what and owners, every entry is told.
            owners: public keys, whatever they sign.
            kinds: of events to tell, such as claim and verdict; none for all.
            with_policy: tell changes of the policy as well, which touch everybody.
            cursor: where the last step that was kept ended; None to begin.
            start: where to begin without one: the index of the first entry; None for the end of the ledger.
            interval_s: between two looks at the newest checkpoint, in [0.1, 86400].
            once: end at the newest checkpoint instead of looking again.
            warn: is told of nodes that lie, and of what else is no event.

        Raises:
            InputError: something of what is none of these, or start is behind the end of the ledger; the cursor is
                another ledger's.
            InvalidError: a bundle's file is damaged, or of another ledger.
            ConsistencyError: an alarm: the ledger does not continue what was seen, or is not what its checkpoints say.
            QuorumError: too few nodes answer; call again with the last cursor.
            OSError: a file cannot be read.
        """
        check_page(start or 0, PAGE_MAX)
        check_range(interval_s, _INTERVAL_S_MIN, _INTERVAL_S_MAX, what="interval_s")
        origin = self._trust.origin
        if cursor is not None and cursor.origin != origin:
            raise InputError(f"cursor: it is in {cursor.origin}, and this client's ledger is {origin}")
        api, pace = self.api, Pace(interval_s=interval_s, once=once)
        watched = await asyncio.to_thread(
            watched_of, what, owners=owners, kinds=kinds, with_policy=with_policy, origin=origin
        )
        steps = watch(api, self._memory, watched, cursor, start=start, pace=pace, warn=warn or _ignore)
        async with aclosing(steps):
            async for step in steps:
                yield step

    async def _fetched(self, digest: bytes) -> tuple[bytes, Story]:
        return await verdicts.fetch_certificate(self.api, self._memory, digest)

    def _kept(self, content: bytes, story: Story, keep_in: AnyBundle | None) -> VerifiedCertificate:
        path = None
        if keep_in is not None:
            path = verdicts.keep_certificate(bundle_of(keep_in), content, story.claim_hash, self._trust)
        return VerifiedCertificate(content=content, story=story, path=path)

    async def _compare(self) -> None:
        """Compare the ledger with what was seen of it before, where enough nodes answer for that."""
        with suppress(QuorumError):
            await check_latest(self.api, self._memory)

    async def _first(self, last: int) -> int:
        """Where the last entries begin."""
        return max(0, (await self.api.entries(start=0, limit=1)).size - last)


def _ignore(_told: object) -> None:
    return
