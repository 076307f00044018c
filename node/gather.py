"""A quorum's signatures on one checkpoint, and what is built from it: receipts and certificates (DESIGN 2, 4.4).

Each node signs only what it stored itself, so a quorum's word has to be collected from the peers (node.peers).

A caller gets a note as soon as a quorum has signed it. What more comes within a second is kept with it, and so is what
members cosigned who have left since: a reader who knows another policy than the present one may need just those lines.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from math import inf

import aiohttp

from node.errors import SelfCheckError
from node.ledger import LedgerService
from node.logs import fields
from node.notes import NoteCache
from node.peers import Peers
from node.receipts import VerifiedReceipts
from node.vouching import Vouching
from registry import merkle
from registry.certificate import Attestation, Certificate, ProvenEntry, verify_certificate
from registry.checkpoint import Checkpoint
from registry.claims import ClaimState
from registry.entry import Entry
from registry.errors import QuorumError, RefusedError, RegistryError, UntrustedError
from registry.note import Note, SignatureLine
from registry.policy import Policy
from registry.receipt import Receipt, verify_under
from registry.trust import TrustedCheckpoint, TrustPolicy
from registry.verdict import CERTIFIED

GATHER_TIMEOUT_S = 30.0
LATEST_TIMEOUT_S = 2.0
COMPLETE_S = 1.0  # how long further cosignatures are waited for, once there is a quorum
RECEIPT_LATE_S_MAX = (
    2  # how much later than its entry's recording a receipt's checkpoint may be, where there is a choice
)

TURN_RECEIPTS = 16  # of a batch that are made before others get their turn

logger = logging.getLogger(__name__)


class Gatherer:
    """Collects cosignatures from the peers and builds what they attest.

    Args:
        name: this node's.
        ledger: the node's own entries and signatures.
        notes: where gathered notes are kept.
        session: for requests to the peers; they are named by the policy, and may have private addresses.

    Attributes:
        latest: the largest checkpoint that a quorum cosigned, as far as this node knows; None before the first.
        self_check_failures: receipts and certificates that did not pass this node's own check since the start.
    """

    def __init__(self, name: str, ledger: LedgerService, notes: NoteCache, session: aiohttp.ClientSession) -> None:
        self._name, self._ledger, self._notes = name, ledger, notes
        self._peers = Peers(name, ledger.store.origin, session)
        self._gathering: dict[int, asyncio.Task[Note]] = {}
        self._completing: set[asyncio.Task[None]] = set()
        self._shared = 0  # the size that fresh entries wait for; 0 while none is gathered for them
        self._vouched: Vouching | None = None
        self._receipts = VerifiedReceipts()
        self.self_check_failures = 0
        self.latest = self._kept()

    async def close(self) -> None:
        """Stop waiting for peers."""
        tasks = [*self._gathering.values(), *self._completing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def trust(self) -> TrustPolicy:
        """What a reader who trusts the ledger's present members trusts."""
        return self._vouching.trust

    @property
    def _vouching(self) -> Vouching:
        store = self._ledger.store
        policy = store.policy
        if self._vouched is None or self._vouched.policy is not policy:
            self._vouched = Vouching(policy, store.origin)
        return self._vouched

    @property
    def latest_size(self) -> int:
        """Entries that a quorum has cosigned, as far as this node knows."""
        return self.latest.checkpoint.size if self.latest else 0

    async def quorum_note(self, size: int, *, timeout_s: float) -> Note:
        """The checkpoint of a size with a quorum's signatures.

        Raises:
            QuorumError: too few nodes have signed it in time.
        """
        cached = self._notes.get(size)
        if cached is not None and self._is_trusted(cached):
            return cached
        task = self._gathering.get(size)
        if task is None:
            task = asyncio.create_task(self._gather(size))
            self._gathering[size] = task
            task.add_done_callback(lambda done: self._finished(size, done))
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(task)
        except TimeoutError:
            raise QuorumError(f"too few nodes signed size {size} within {timeout_s} s") from None

    async def _note_behind(self, index: int, recorded_s: int, *, timeout_s: float) -> Note:
        """A quorum's checkpoint that has an entry, the first or one that was signed hardly later.

        Entries that come together share one, so that a busy node asks its peers once for many of them: whoever comes
        while one is gathered waits for its end, and then for the next, which has all that has come by then.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    kept = self._notes.covering(index + 1)
                    if kept is not None and self._is_soon(kept, recorded_s):
                        return kept
                    if self._ledger.now_s() > recorded_s + RECEIPT_LATE_S_MAX:
                        return await self.quorum_note(index + 1, timeout_s=timeout_s)
                    running = self._gathering.get(self._shared)
                    if running is None:
                        self._shared = self._ledger.store.size
                        return await self.quorum_note(self._shared, timeout_s=timeout_s)
                    await asyncio.wait([running])
        except TimeoutError:
            raise QuorumError(f"too few nodes signed the tree with entry {index} within {timeout_s} s") from None

    def _is_soon(self, note: Note, recorded_s: int) -> bool:
        """Whether the present members vouch for a note, and that it was signed soon after this time."""
        return recorded_s >= self._soon_since_s(note)

    def _soon_since_s(self, note: Note) -> float:
        """Entries recorded from this time on were recorded soon before a note; infinite if nobody vouches for it."""
        try:
            times_s = self._vouching.check(note).times_s.values()
        except UntrustedError:
            return inf
        return max(times_s, default=0) - RECEIPT_LATE_S_MAX

    async def latest_note(self) -> Note:
        """The largest checkpoint that a quorum cosigned, as far as this node knows.

        Raises:
            QuorumError: none is known.
        """
        with suppress(QuorumError):
            return await self.quorum_note(self._ledger.store.size, timeout_s=LATEST_TIMEOUT_S)
        latest = self._notes.latest()
        if latest is None or not self._is_trusted(latest):
            raise QuorumError("no checkpoint was cosigned by a quorum yet")
        return latest

    def seen_signed_by(self, member: str) -> Note | None:
        """The largest checkpoint that this node has gathered with a cosignature of a member, None for none."""
        return self._notes.latest_signed_by(f"{self._ledger.store.origin}/{member}")

    async def confirm(self, size: int, policies: Sequence[Policy]) -> None:
        """Check this node's own tree of a size, signed by itself or not, by the word of a quorum of others.

        Args:
            size: entries that this node has stored.
            policies: a quorum of any of them, without this node, will do.

        Raises:
            QuorumError: too few of them have signed this tree in time.
        """
        store = self._ledger.store
        text = str(Checkpoint(origin=store.origin, size=size, root=store.root(size)))
        members = {member.name: member for policy in policies for member in policy.members}
        trusts = [TrustPolicy.of(policy, store.origin) for policy in policies]
        lines: list[SignatureLine] = []
        async with aclosing(self._peers.ask_all(text, size, list(members.values()))) as answers:
            async for signatures in answers:
                lines += signatures
                if any(_vouches(trust, Note(text, tuple(lines))) for trust in trusts):
                    return
        raise QuorumError(f"too few nodes confirm the tree of size {size}")

    async def receipt(self, index: int, *, timeout_s: float) -> str:
        """The receipt of an entry, on a checkpoint of the time when it came in; verified before it leaves.

        Raises:
            QuorumError: too few nodes have signed that checkpoint in time.
            SelfCheckError: it does not hold.
        """
        made = (await self.receipts([index], timeout_s=timeout_s))[index]
        if isinstance(made, Exception):
            raise made
        return made

    async def receipts(self, indexes: Sequence[int], *, timeout_s: float) -> dict[int, str | Exception]:
        """The receipts of entries by their indexes; an error where `receipt` would have raised it.

        The newest is made first, since its checkpoint has the others too and will do for those that came with it.
        """
        clock, store, policy = asyncio.get_running_loop().time, self._ledger.store, self._ledger.store.policy
        deadline_s = clock() + timeout_s
        made: dict[int, str | Exception] = {
            index: known for index in indexes if (known := self._receipts.get(index, policy)) is not None
        }
        entries = store.entries_at(set(indexes) - made.keys())
        note_text, since_s = "", inf
        for number, index in enumerate(sorted(entries, reverse=True), start=1):
            if number % TURN_RECEIPTS == 0:
                await asyncio.sleep(0)
            try:
                recorded_s = Entry.decode(entries[index]).recorded_s
                if recorded_s < since_s:
                    note = await self._note_behind(index, recorded_s, timeout_s=max(0.0, deadline_s - clock()))
                    note_text, since_s = str(note), self._soon_since_s(note)
                made[index] = self._make_receipt(index, entries[index], note_text, begun=policy)
            except (RegistryError, SelfCheckError) as error:
                made[index] = error
        return made

    def _make_receipt(self, index: int, entry: bytes, note_text: str, *, begun: Policy) -> str:
        store, vouching = self._ledger.store, self._vouching
        with self._self_check("receipt", begun):
            size = vouching.read(note_text).checkpoint.size
            proof = merkle.inclusion_proof(index, size, store.read_node)
            text = str(Receipt(entry=entry, index=index, proof=tuple(proof), checkpoint_note=note_text))
            receipt = Receipt.parse(text)
            verify_under(receipt, vouching.read(receipt.checkpoint_note), unseal=store.unseal)
        self._receipts.put(index, vouching.policy, text)
        return text

    async def certificate(self, claim: bytes, *, timeout_s: float) -> bytes:
        """The certificate of a verified claim; verified before it leaves.

        Raises:
            RefusedError: code open, not_verified or superseded.
            QuorumError: too few nodes have signed the checkpoints it needs in time.
            UntrustedError: the members changed meanwhile, and those that signed are too few of the present ones.
            SelfCheckError: it does not hold.
        """
        state, begun = self._provable(claim), self._ledger.store.policy
        indexes = self._ledger.store.certificate_entries(claim)
        if not await self._ledger.applied.wait_for(indexes[-1] + 1, timeout_s):
            raise QuorumError("this node has not stored all that belongs to the claim yet")
        final = await self.quorum_note(self._ledger.store.size, timeout_s=timeout_s)
        size = self.trust.check(final).checkpoint.size
        edges = sorted({edge for index in state.order for edge in (index, index + 1)})
        attestations = [await self._attestation(edge, size, timeout_s) for edge in edges]
        certificate = Certificate(
            origin=self.trust.origin,
            checkpoint_note=str(final),
            entries=tuple(self._proven(index, size) for index in indexes),
            attestations=tuple(attestations),
        ).encode()
        with self._self_check("certificate", begun):
            verify_certificate(certificate, self.trust)
        return certificate

    @contextmanager
    def _self_check(self, what: str, begun: Policy) -> Iterator[None]:
        """Count what would not pass a reader's check, and keep it here.

        Args:
            what: is checked, for the log.
            begun: the policy in force when it was begun. Where the members have changed since, too few of those who
                signed may be left, which is nobody's fault.
        """
        try:
            yield
        except RegistryError as error:
            if isinstance(error, UntrustedError) and self._ledger.store.policy is not begun:
                raise
            self.self_check_failures += 1
            logger.exception("this node made what it would not accept", extra=fields(what=what, code=error.code))
            raise SelfCheckError(f"the {what} that this node made does not hold; ask another node") from error

    def _kept(self) -> TrustedCheckpoint | None:
        """The largest checkpoint that was gathered before this node's start, if its signers are members still."""
        note = self._notes.latest()
        try:
            return None if note is None else self._vouching.check(note)
        except RegistryError:
            return None

    def _provable(self, claim: bytes) -> ClaimState:
        state = self._ledger.store.claim_state(claim)
        if state is None:
            raise RefusedError(f"no claim {claim.hex()}", code="not_found")
        verdict = self._ledger.verdict(claim)
        if verdict.outcome is None:
            raise RefusedError("the claim has no verdict yet", code="open")
        if verdict.outcome not in CERTIFIED:
            raise RefusedError(f"the verdict is {verdict.outcome} ({verdict.reason})", code="not_verified")
        if verdict.superseded_by is not None:
            raise RefusedError(
                f"the verified claim {verdict.superseded_by.hex()} has the earlier publication", code="superseded"
            )
        return state

    def _proven(self, index: int, size: int) -> ProvenEntry:
        store = self._ledger.store
        proof = merkle.inclusion_proof(index, size, store.read_node)
        return ProvenEntry(index=index, entry=store.entry(index), proof=tuple(proof))

    async def _attestation(self, edge: int, size: int, timeout_s: float) -> Attestation:
        note = await self.quorum_note(edge, timeout_s=timeout_s)
        proof = merkle.consistency_proof(edge, size, self._ledger.store.read_node)
        return Attestation(checkpoint_note=str(note), proof=tuple(proof))

    def _is_trusted(self, note: Note) -> bool:
        """Whether the present members vouch for a note; those who cosigned it may have left since."""
        return _vouches(self._vouching, note)

    def _finished(self, size: int, task: "asyncio.Task[Note]") -> None:
        self._gathering.pop(size, None)
        if not task.cancelled():
            task.exception()  # marks it as seen: whoever asked may have gone away

    async def _gather(self, size: int) -> Note:
        """Collect a quorum's lines; many callers may wait for one collection, each as long as it likes."""
        if not await self._ledger.signed.wait_for(size, GATHER_TIMEOUT_S):
            raise QuorumError(f"this node has not signed size {size} yet")
        own = self._ledger.own_note(size)
        if own is None:
            raise QuorumError(f"this node has not stored what it signed, up to size {size}")
        policy = self._ledger.store.policy
        is_member = any(member.name == self._name for member in policy.members)
        lines, nodes, quorum = list(own.signatures), int(is_member), policy.quorum
        answers = self._peers.ask_all(own.text, size, policy.members)
        try:
            while nodes < quorum and (signatures := await anext(answers, None)) is not None:
                lines += signatures
                nodes += 1
            _check_quorum(nodes, quorum, size)
            note = Note(own.text, self._with_known(lines, own.text, size))
            checked = self._vouching.check(note)
            await self._keep(size, note)
        except BaseException:
            await answers.aclose()
            raise
        if checked.checkpoint.size > self.latest_size:
            self.latest = checked
        completing = asyncio.create_task(self._complete(answers, note, size))
        self._completing.add(completing)
        completing.add_done_callback(self._completing.discard)
        return note

    async def _complete(self, answers: AsyncGenerator[tuple[SignatureLine, ...], None], note: Note, size: int) -> None:
        """Add what more comes within COMPLETE_S to a note that a quorum has signed."""
        lines = list(note.signatures)
        async with aclosing(answers):
            with suppress(TimeoutError):
                async with asyncio.timeout(COMPLETE_S):
                    async for signatures in answers:
                        lines += [line for line in signatures if line not in lines]
        if len(lines) > len(note.signatures):
            await self._keep(size, Note(note.text, tuple(lines)))

    async def _keep(self, size: int, note: Note) -> None:
        try:
            await asyncio.to_thread(self._notes.put, size, note)
        except sqlite3.Error as error:  # it can be gathered again
            logger.warning("a gathered note was not kept", extra=fields(size=size, why=repr(error)))

    def _with_known(self, lines: Sequence[SignatureLine], text: str, size: int) -> tuple[SignatureLine, ...]:
        """These lines, and those of other signers that were gathered before."""
        known = self._notes.get(size)
        if known is None or known.text != text:
            return tuple(lines)
        signers = {(line.name, line.key_id) for line in lines}
        return (*lines, *(line for line in known.signatures if (line.name, line.key_id) not in signers))


def _check_quorum(nodes: int, quorum: int, size: int) -> None:
    if nodes < quorum:
        raise QuorumError(f"{nodes} of the {quorum} nodes of a quorum signed size {size} in time")


def _vouches(trust: TrustPolicy | Vouching, note: Note) -> bool:
    try:
        trust.check(note)
    except UntrustedError:
        return False
    return True
