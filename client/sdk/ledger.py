"""The SDK for programs with an event loop: `Client`.

Every answer is checked before it is returned, by the policy and against what was seen of the ledger before. What no
check can show, such as a page of the log, is one node's word, and is called so.

Each method may be cancelled and called again. A message is saved before it is sent, so that calling again sends the
same one and not a second.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing, nullcontext, suppress
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client import verdicts
from client.acts import Act, Acts
from client.api import Api, Recorded, open_ledger
from client.claim_state import ClaimState
from client.claiming import submit_claim
from client.continuity import check_latest
from client.errors import InputError, PendingError
from client.files import sha256_file
from client.following import Followed, follow
from client.log_page import LogLine, LogPage
from client.memory import Memory
from client.publishing import Owner, finishing, keep_seen, publish
from client.sdk import PAGE, PATIENCE_S, STRAGGLERS_S, VERDICT_TIMEOUT_S
from client.sdk.inputs import (
    PAGE_MAX,
    AnyBundle,
    AnyKey,
    AnyMessage,
    AnyPath,
    AnyPolicy,
    bundle_of,
    check_page,
    check_range,
    digest_of,
    key_of,
    owner_of,
    policy_of,
    state_of,
)
from client.sdk.results import ClaimStatus, VerifiedCertificate
from client.searching import Found, Query, search
from client.suspects import Suspect, suspect_of
from client.transport import Timing
from registry.certificate import Story
from registry.errors import QuorumError
from registry.messages import Challenge, Rotation, Withdrawal
from registry.trust import TrustPolicy

_PATIENCE_S_MAX = 86_400.0
OnChange = Callable[[ClaimState], None]


class Client:
    """A session with the nodes of one ledger, as a reader and, with a signing key, as an owner.

    Use it as `async with Client(...) as ledger:`. Several tasks of one event loop may use it at a time; publishing or
    claiming the same thing twice at a time is refused to the second (`InputError`, code busy).

    Args:
        policy: whom you trust and where the ledger is: a `TrustPolicy`, the text of one, or the path of its file.
        owner: the owner's signing key or the path of its file; None for one who only reads.
        state_directory: where it is remembered what was seen of ledgers, and the owner's receipts are kept. None for
            the command's own: $WMREG_HOME or ~/.local/share/wmreg. Two programs may share one.
        patience_s: how long to keep trying while too few nodes answer, in [0, 86400].
        ca_file: PEM of the authorities that vouch for nodes with https URLs; None for the system's.

    Raises:
        InputError: the policy is none, or others may read the file of the key.
        InvalidError: the file of the key holds no Ed25519 key.
        OSError: a file cannot be read.

    Every method that asks the nodes raises `QuorumError` when too few answer, `ConsistencyError` when the ledger does
    not continue what was seen of it before, and `UntrustedError` when the policy does not vouch for an answer.
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
        check_range(patience_s, 0, _PATIENCE_S_MAX, what="patience_s")
        state = state_of(state_directory)
        self._trust = policy_of(policy)
        self._private_key = None if owner is None else key_of(owner)
        self._memory, self._acts = Memory.within(state), Acts.within(state, self._trust.origin)
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

    async def publish(self, bundle: AnyBundle) -> Recorded:
        """Publish the commitments of a bundle and wait for a quorum; the model may be released afterwards.

        Args:
            bundle: the directory that `wmreg embed` or `wm.Mark.save` made, or its path. The message is saved there
                before it is sent, and the receipt behind it; publishing again is the same publication.

        Raises:
            InvalidError, RefusedError: the bundle's files do not fit each other, the owner or the ledger.
            UnfinishedError: it is published, but a file could not be written.
        """
        return await publish(self.api, self._memory, bundle_of(bundle), self._owner())

    async def claim(
        self,
        model: AnyPath | Suspect,
        bundle: AnyBundle,
        *,
        sha256: str | None = None,
        watermark: int = 0,
        again: bool = False,
    ) -> Recorded:
        """Claim that a model carries the mark that was published from a bundle. It reveals the watermark key for good.

        Everything that can be checked beforehand is checked before the key is revealed. What the nodes need is uploaded
        to them. Claiming again is the same claim, until `again` says otherwise.

        Args:
            model: a file, an https URL (with its hash), `blob:sha256:…`, or a `Suspect`, such as an `endpoint_at`.
            bundle: the owner's directory, or its path.
            sha256: hash that the model's file must have, 64 hexadecimal digits; needed for a URL.
            watermark: which of the bundle's watermarks is revealed; 0 is the first.
            again: make a new claim although this model was claimed from this bundle before.

        Returns:
            The claim, which is in the log; what comes of it says `wait_for_verdict`.

        Raises:
            InputError: a URL without a hash, or a pointer that nodes do not follow.
            InvalidError, RefusedError: a file or the ledger says no; the code says why.
            UnfinishedError: it is recorded, but a file could not be written.
        """
        owner, whole = self._owner(), bundle_of(bundle)
        bundle_of(whole.part(watermark))
        suspect = model if isinstance(model, Suspect) else await asyncio.to_thread(_suspect, model, sha256)
        return await submit_claim(self.api, self._memory, whole, owner, suspect, watermark=watermark, again=again)

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
            UnfinishedError: the certificate could not be written; wait again.
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

    async def challenge(self, claim: AnyMessage, bundle: AnyBundle, *, reason: str) -> Recorded:
        """Object to somebody else's claim, as the owner of the publication in a bundle. An objection decides nothing.

        Args:
            claim: the hash of the claim.
            bundle: the owner's published directory, or its path.
            reason: for people; it stays in the ledger.

        Raises:
            InputError: the reason is empty, too long or more than a line.
            RefusedError: by the ledger's rules.
            UnfinishedError: it is recorded, but a file could not be written.
        """
        publication = bundle_of(bundle).load_publication(origin=self._trust.origin).hash
        digest = digest_of(claim, what="claim")
        return await self._act(Challenge(time_s=_now_s(), claim=digest, publication=publication, reason=reason))

    async def withdraw(self, message: AnyMessage, *, reason: str) -> Recorded:
        """Take a publication or a claim of one's own back. Nothing is erased, and this cannot be undone.

        Args:
            message: what `publish` or `claim` returned, or its hash.
            reason: for people; it stays in the ledger.

        Raises:
            InputError: the reason is empty, too long or more than a line.
            RefusedError: by the ledger's rules.
            UnfinishedError: it is recorded, but a file could not be written.
        """
        target = digest_of(message, what="message")
        return await self._act(Withdrawal(time_s=_now_s(), target=target, reason=reason))

    async def rotate(self, new_key: AnyKey) -> Recorded:
        """Move from the owner's signing key to another one. This cannot be undone; make a client with the new key then.

        Args:
            new_key: the new signing key, or the path of its file.

        Raises:
            RefusedError: by the ledger's rules.
            UnfinishedError: it is recorded, but a file could not be written.
        """
        old, new = self._signing_key(), key_of(new_key)
        old_key, new_public = (key.public_key().public_bytes_raw() for key in (old, new))
        rotation = Rotation(time_s=_now_s(), old_key=old_key, new_key=new_public)
        return await self._acts.submit(self.api, self._memory, rotation, [old, new])

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
            value: a hash or a public key, 32 bytes or 64 hexadecimal digits; or a `pathlib.Path`, whose file is hashed.
            is_owner: it is a public key, whose entries are wanted.
            start: index of the first entry to look at.
            limit: entries to return at most, in [1, 100].

        Returns:
            A page of entries, and whose word it is that there are no others.
        """
        check_page(start, limit)
        if isinstance(value, PathLike):
            digest, _ = await asyncio.to_thread(sha256_file, Path(value))
        else:
            digest = digest_of(value, what="value")
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
        following_page: int | None = start
        while following_page is not None:
            page = await self.log(start=following_page, limit=PAGE_MAX)
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

    async def _act(self, act: Act) -> Recorded:
        return await self._acts.submit(self.api, self._memory, act, [self._signing_key()])

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

    def _owner(self) -> Owner:
        return owner_of(self._signing_key(), self._acts, origin=self._trust.origin)

    def _signing_key(self) -> Ed25519PrivateKey:
        if self._private_key is None:
            raise InputError("owner: this takes the owner's signing key; give its file as Client(policy, owner=…)")
        return self._private_key


def _suspect(model: AnyPath, sha256: str | None) -> Suspect:
    return suspect_of(fspath(model), sha256=sha256)


def _ignore(_state: ClaimState) -> None:
    return


def _now_s() -> int:
    return int(time.time())
