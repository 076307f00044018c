"""The ledger's HTTP API as calls, each of which checks what can be checked of the answer.

Receipts, certificates and checkpoints are verified with the reader's trust policy here, so no caller can forget it;
an answer that does not hold moves on to the next node. Everything else (a claim's state, a page of the ledger, a
node's health) is a node's word, and the verbs say so.
"""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from client.claim_state import ClaimState
from client.log_page import LogPage
from client.transport import Request, Timing, Transport, UnreachableError, connect, read_json
from registry import tiles
from registry.certificate import Story, verify_certificate
from registry.checkpoint import Checkpoint
from registry.envelope import message_hash
from registry.errors import MalformedError, QuorumError, RegistryError, UntrustedError, shown
from registry.note import Note, verify_signatures
from registry.receipt import Receipt, VerifiedReceipt, verify_receipt
from registry.trust import TrustedCheckpoint, TrustPolicy

T = TypeVar("T")
CLAIM_WAIT_S_MAX = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An entry that is in the log, by a receipt that was checked.

    Attributes:
        receipt: its text, to be kept.
        verified: what it proves: index, time and message of the entry.
        duplicate: the same message had been recorded before; None where that was not asked.
        receipt_path: the file in which the receipt was kept; None where it was not.
    """

    receipt: str
    verified: VerifiedReceipt
    duplicate: bool | None = None
    receipt_path: Path | None = None

    @property
    def index(self) -> int:
        """Place of the entry in the log."""
        return self.verified.index

    @property
    def hash(self) -> bytes:
        """Name of its message, 32 bytes."""
        return self.verified.signed.hash


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCheckpoint:
    """A checkpoint that the policy vouches for, and the note that shows it."""

    note: str
    trusted: TrustedCheckpoint

    @property
    def size(self) -> int:
        """Entries in its tree."""
        return self.trusted.checkpoint.size


class OtherLogError(UntrustedError):
    """A node's checkpoint that none of the policy's log keys signed: of another ledger, or of a node not listed."""


class Api:
    """The nodes of one ledger; make it with `open_ledger`."""

    def __init__(self, transport: Transport, trust: TrustPolicy) -> None:
        self.transport = transport
        self.trust = trust

    async def submit(self, envelope: bytes) -> Recorded:
        """Submit a message and wait until a quorum attests that it is recorded.

        Raises:
            RefusedError: by the rules; the code says which.
            QuorumError: the outcome is unknown; submitting the same envelope again is safe.
        """
        request = Request(method="POST", path="/v1/entries", body=envelope, wait_s=30)
        return await self.transport.ask(request, lambda body: self._read_submitted(body, envelope))

    async def receipt(self, digest: bytes) -> Recorded:
        """Fetch and check the receipt of a message.

        Raises:
            RefusedError: code not_found.
        """
        path = f"/v1/receipts/{digest.hex()}"
        return await self.transport.ask(Request(path=path), lambda body: self._read_receipt(body, digest))

    async def find(self, digest: bytes) -> Recorded | None:
        """The receipt of a message that may be recorded or not; None when a quorum of nodes does not have it.

        Raises:
            QuorumError: neither a receipt, nor enough nodes that say that there is none.
        """
        answers = await self.transport.ask_all(Request(path=f"/v1/receipts/{digest.hex()}"), least=self.quorum)
        for answer in answers.values():
            if isinstance(answer, bytes):
                with suppress(RegistryError):
                    return self._read_receipt(answer, digest)
        if is_quorum(self.trust, [url for url, answer in answers.items() if _code(answer) == "not_found"]):
            return None
        raise QuorumError(f"too few nodes say whether the message {digest.hex()} is recorded", code="unavailable")

    async def claim(self, digest: bytes, *, wait_s: int = 0) -> ClaimState:
        """A claim's state, by one node's word; answers when there is a verdict or after wait_s (at most 60)."""
        path = f"/v1/claims/{digest.hex()}?wait_s={min(wait_s, CLAIM_WAIT_S_MAX)}"
        return await self.transport.ask(Request(path=path, wait_s=wait_s), lambda body: _read_claim(body, digest))

    async def claim_by_all(self, digest: bytes) -> dict[str, ClaimState | RegistryError]:
        """A claim's state by every node's word, or why there is none, by URL."""
        answers = await self.transport.ask_all(Request(path=f"/v1/claims/{digest.hex()}"), least=self.quorum)
        return {url: _caught(answer, lambda body: _read_claim(body, digest)) for url, answer in answers.items()}

    async def certificate(self, digest: bytes) -> tuple[bytes, Story]:
        """Fetch and check the certificate of a claim.

        Raises:
            RefusedError: code open, not_verified, superseded or not_found.
        """
        path = f"/v1/certificates/{digest.hex()}"
        return await self.transport.ask(Request(path=path), lambda body: self._read_certificate(body, digest))

    async def entries(self, *, start: int, limit: int) -> LogPage:
        """A page of the ledger, by one node's word."""
        request = Request(path=f"/v1/entries?start={start}&limit={limit}")
        return await self.transport.ask(request, lambda body: LogPage.read(read_json(body)))

    async def entry_bundle(self, number: int, *, width: int) -> list[bytes]:
        """The entries of one tile; whether they are the log's is the caller's to check."""
        path = f"/tile/entries/{tiles.tile_path(number, width)}"
        return await self.transport.ask(Request(path=path), lambda body: _read_bundle(body, width))

    async def entry_bundle_of(self, url: str, number: int, *, width: int) -> list[bytes]:
        """One node's entries of one tile; whether they are the log's is the caller's to check."""
        path = f"/tile/entries/{tiles.tile_path(number, width)}"
        return _read_bundle(await self.transport.ask_node(url, Request(path=path)), width)

    async def hash_tile(self, url: str, level: int, number: int, *, width: int) -> bytes:
        """One node's hashes of one tile, 32 bytes each; whether they are the log's is the caller's to check."""
        path = f"/tile/{level}/{tiles.tile_path(number, width)}"
        return _read_hashes(await self.transport.ask_node(url, Request(path=path)), width)

    async def checkpoints(self) -> dict[str, SeenCheckpoint | RegistryError]:
        """The latest checkpoint of every node that the policy vouches for, or why there is none, by URL."""
        answers = await self.transport.ask_all(Request(path="/checkpoint"), least=self.quorum)
        return {url: self._read_checkpoint(answer) for url, answer in answers.items()}

    async def own_notes(self, size: int, *, wait_s: int = 0) -> dict[str, Note | RegistryError]:
        """Every node's own signed note at a size, or why there is none, by URL; its signatures hold."""
        request = Request(path=f"/v1/checkpoints/{size}?wait_s={wait_s}", wait_s=wait_s)
        answers = await self.transport.ask_all(request, least=self.quorum)
        return {url: self._read_own_note(answer) for url, answer in answers.items()}

    async def own_note(self, url: str, size: int) -> Note | RegistryError:
        """One node's own signed note at a size, or why there is none; its signatures hold."""
        try:
            answer = await self.transport.ask_node(url, Request(path=f"/v1/checkpoints/{size}"))
        except RegistryError as error:
            return error
        return self._read_own_note(answer)

    async def nodes(self) -> dict[str, dict[str, object] | RegistryError]:
        """What every node says of itself, or why it does not, by URL."""
        answers = await self.transport.ask_all(Request(path="/v1/node"), least=self.quorum)
        return {url: _caught(answer, read_json) for url, answer in answers.items()}

    @property
    def quorum(self) -> int:
        """How many nodes' answers, refusals included, are enough when all are asked."""
        return max(1, quorum_size(self.trust))

    def _read_submitted(self, body: bytes, envelope: bytes) -> Recorded:
        answer = read_json(body)
        try:
            receipt = cast("str", answer.get("receipt")).encode()
        except (AttributeError, UnicodeEncodeError) as error:
            raise UnreachableError("the answer holds no receipt") from error
        recorded = self._read_receipt(receipt, message_hash(envelope))
        return Recorded(receipt=recorded.receipt, verified=recorded.verified, duplicate=answer.get("duplicate") is True)

    def _read_receipt(self, body: bytes, digest: bytes) -> Recorded:
        text = _text(body)
        verified = verify_receipt(Receipt.parse(text), self.trust)
        if verified.signed.hash != digest:
            raise UntrustedError(f"a node gave the receipt of another message than {digest.hex()}", code="other_entry")
        return Recorded(receipt=text, verified=verified)

    def _read_certificate(self, body: bytes, digest: bytes) -> tuple[bytes, Story]:
        story = verify_certificate(body, self.trust)
        if story.claim_hash != digest:
            raise UntrustedError(
                f"a node gave the certificate of another claim than {digest.hex()}", code="other_claim"
            )
        return body, story

    def _read_checkpoint(self, answer: bytes | RegistryError) -> SeenCheckpoint | RegistryError:
        if isinstance(answer, RegistryError):
            return answer
        try:
            note = _text(answer)
            self._check_log(parsed := Note.parse(note))
            return SeenCheckpoint(note=note, trusted=self.trust.check(parsed))
        except RegistryError as error:
            return error

    def _read_own_note(self, answer: bytes | RegistryError) -> Note | RegistryError:
        if isinstance(answer, RegistryError):
            return answer
        try:
            note = Note.parse(_text(answer))
            self._check_log(note)
        except RegistryError as error:
            return error
        return note

    def _check_log(self, note: Note) -> None:
        """Check that a log key of the policy signed a note; raises OtherLogError, or why its line does not hold."""
        if verify_signatures(note, [log.key for log in self.trust.logs]):
            return
        origin = Checkpoint.parse(note.text).origin
        if origin != self.trust.origin:
            raise OtherLogError(f"a checkpoint of {shown(origin)}; the policy trusts {self.trust.origin}")
        raise OtherLogError(f"the checkpoint has no signature of a known log key of {origin}")


@asynccontextmanager
async def open_ledger(
    trust: TrustPolicy, timing: Timing | None = None, *, ca_file: Path | None = None
) -> AsyncIterator[Api]:
    """Open a session with the nodes that the trust policy names; ca_file as `client.transport.connect` takes it.

    Raises:
        QuorumError: it names none.
    """
    async with connect(trust.urls, timing, ca_file=ca_file) as transport:
        yield Api(transport, trust)


def quorum_size(trust: TrustPolicy) -> int:
    """The least number of witnesses that can satisfy the policy; 0 for a policy without a quorum."""
    if trust.quorum == "none":
        return 0
    return _least(trust, trust.quorum)


def is_quorum(trust: TrustPolicy, urls: Collection[str]) -> bool:
    """Whether the nodes at these URLs satisfy the policy's quorum; for a policy without one, whether there is any."""
    if trust.quorum == "none":
        return bool(urls)
    return _satisfied(trust, trust.quorum, {w.name for w in trust.witnesses if w.url and w.url.rstrip("/") in urls})


def _satisfied(trust: TrustPolicy, name: str, witnesses: Collection[str]) -> bool:
    group = trust.groups.get(name)
    if group is None:
        return name in witnesses
    return sum(_satisfied(trust, member, witnesses) for member in group.members) >= group.threshold


def _least(trust: TrustPolicy, name: str) -> int:
    group = trust.groups.get(name)
    if group is None:
        return 1
    return sum(sorted(_least(trust, member) for member in group.members)[: group.threshold])


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise MalformedError("a node's answer is not text") from error


def _read_bundle(body: bytes, width: int) -> list[bytes]:
    entries = tiles.parse_entry_bundle(body)
    if len(entries) != width:
        raise MalformedError(f"an entry bundle of {len(entries)} entries; {width} were asked for")
    return entries


def _read_hashes(body: bytes, width: int) -> bytes:
    if len(body) != 32 * width:
        raise MalformedError(f"a tile of {len(body)} bytes; {width} hashes were asked for")
    return body


def _read_claim(body: bytes, digest: bytes) -> ClaimState:
    return ClaimState.read(read_json(body), digest)


def _caught(answer: bytes | RegistryError, read: Callable[[bytes], T]) -> T | RegistryError:
    if isinstance(answer, RegistryError):
        return answer
    try:
        return read(answer)
    except RegistryError as error:
        return error


def _code(answer: object) -> str | None:
    return answer.code if isinstance(answer, RegistryError) else None
