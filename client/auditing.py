"""The audit: download every entry, replay every rule, compare every node (DESIGN 8).

No node is believed. The entries are applied again by the rulebook, so signatures, order, keys and votes are checked;
their Merkle root must be the one in every checkpoint that any node shows, and in the one that this reader saw before.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from client.api import Api, SeenCheckpoint
from client.memory import Memory, largest_of
from client.mirror import Mirror
from registry.audit import Replay, replay
from registry.checkpoint import Checkpoint
from registry.entry import Entry
from registry.envelope import unseal
from registry.errors import ConsistencyError, RegistryError
from registry.note import Note
from registry.trust import TrustedCheckpoint, TrustPolicy

if TYPE_CHECKING:
    from registry.envelope import SignedMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFinding:
    """What the audit found of one node; problem is None for one that agrees."""

    url: str
    size: int | None
    problem: str | None


@dataclass(slots=True, kw_only=True)
class Audit:
    """What an audit found; nothing in it is bad, for the first bad thing is an exception.

    Attributes:
        kinds: messages of each kind.
        verdicts: claims by outcome; "open" for those without one, "superseded" for verified ones that do not prevail.
    """

    origin: str
    size: int
    root: bytes
    trusted: TrustedCheckpoint
    kinds: Counter[str]
    verdicts: Counter[str]
    bundles_fetched: int = 0
    nodes: list[NodeFinding] = field(default_factory=list)


async def audit_ledger(api: Api, memory: Memory, mirror: Mirror) -> Audit:
    """Download and check everything, and compare all nodes.

    Raises:
        ConsistencyError: naming the first bad entry, checkpoint or node.
        QuorumError: no node shows a checkpoint or gives the entries.
    """
    answers = await api.checkpoints()
    seen = largest_of(answers)
    fetched = await mirror.download(api, seen.note, seen.size)
    state = replay(mirror.entries(seen.size))
    audit = _sum_up(state, seen.trusted, api.trust, mirror)
    _check_remembered(state, memory, api.trust.origin)
    audit.nodes = [_compare(state, url, answer) for url, answer in answers.items()]
    await _check_own_notes(api, state, seen.size)
    old = memory.recall(api.trust.origin)
    if old is None or old.size < seen.size:
        memory.remember(seen)
    audit.bundles_fetched = fetched
    return audit


def audit_mirror(mirror: Mirror, trust: TrustPolicy) -> Audit:
    """Check an existing mirror without any network.

    Raises:
        ConsistencyError: naming the first bad entry, or a root that the checkpoint does not state.
        RegistryError: the policy does not vouch for the mirror's checkpoint.
        OSError: a file is missing.
    """
    trusted = trust.check(Note.parse(mirror.load_checkpoint()))
    return _sum_up(replay(mirror.entries(trusted.checkpoint.size)), trusted, trust, mirror)


def _sum_up(state: Replay, trusted: TrustedCheckpoint, trust: TrustPolicy, mirror: Mirror) -> Audit:
    state.check(trusted.checkpoint)
    if state.ledger.origin != trust.origin:
        raise ConsistencyError(f"the log's genesis names {state.ledger.origin}, not {trust.origin}", code="origin")
    messages = _messages(mirror, state.size, trust.origin)
    return Audit(
        origin=trust.origin,
        size=state.size,
        root=trusted.checkpoint.root,
        trusted=trusted,
        kinds=Counter(signed.message.KIND for signed in messages),
        verdicts=Counter(_verdict_word(state, claim) for claim in state.ledger.claims()),
    )


def _messages(mirror: Mirror, size: int, origin: str) -> "Iterator[SignedMessage]":
    for index, raw in enumerate(mirror.entries(size)):
        yield unseal(Entry.decode(raw).envelope, origin=origin if index else None)


def _verdict_word(state: Replay, claim: bytes) -> str:
    verdict = state.ledger.verdict(claim)
    if verdict.superseded_by is not None:
        return "superseded"
    return str(verdict.outcome or "open")


def _check_remembered(state: Replay, memory: Memory, origin: str) -> None:
    old = memory.recall(origin)
    if old is None:
        return
    try:
        state.check(old)
    except ConsistencyError as error:
        message = f"the log does not continue the checkpoint that was seen before ({memory.path(origin)}): {error}"
        raise ConsistencyError(message, code=error.code) from error


def _compare(state: Replay, url: str, answer: SeenCheckpoint | RegistryError) -> NodeFinding:
    if isinstance(answer, RegistryError):
        return NodeFinding(url=url, size=None, problem=" ".join(str(answer).split()))
    _check_node(state, url, answer.trusted.checkpoint)
    return NodeFinding(url=url, size=answer.size, problem=None)


async def _check_own_notes(api: Api, state: Replay, size: int) -> None:
    """What each node signed by itself at this size; one that has not come so far is no problem."""
    for url, answer in (await api.own_notes(size)).items():
        if isinstance(answer, Note):
            _check_node(state, url, Checkpoint.parse(answer.text))


def _check_node(state: Replay, url: str, checkpoint: Checkpoint) -> None:
    try:
        state.check(checkpoint)
    except ConsistencyError as error:
        raise ConsistencyError(f"{url} signed another past: {error}", code="fork") from error
