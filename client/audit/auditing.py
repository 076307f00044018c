"""The audit: download every entry, replay every rule, compare every node (DESIGN 8).

No node is believed. The entries are applied again by the rulebook, so signatures, order, keys and votes are checked;
their Merkle root must be the one in every checkpoint that any node shows, and in the one that this reader saw before;
the times that they state must fit the cosignatures around them. Whatever does not is a finding. The replay of the rules
ends at the first entry that they refuse; the comparison of nodes, memory and times goes on with what is known by then.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from client.api import Api, SeenCheckpoint, quorum_size
from client.audit.attesting import Attestations
from client.audit.comparing import Comparison
from client.audit.dating import check_times, fetch_attestations
from client.audit.findings import Finding, Findings
from client.audit.mirror import Mirror
from client.audit.replaying import Result, replay_entries, without_garbage_collection
from client.continuity import AlarmError, check_still_there, not_compared, shown_in
from client.errors import InputError
from client.evidence import EvidenceStore
from client.memory import Memory
from client.stories import unchecked
from registry.audit import Replay
from registry.errors import ConsistencyError, MalformedError, QuorumError, RefusedError, RegistryError, UntrustedError
from registry.note import Note
from registry.trust import TrustedCheckpoint, TrustPolicy

if TYPE_CHECKING:
    from client.audit.recomputing import Recomputation

_WAIT_S = 5  # for a quorum to cosign what one node shows already
_SIZES_AHEAD_MAX = 4
_NOT_THE_LOG = "this copy is not the log, so neither times nor votes of it were compared with anything"
Show = Callable[[str], None]
_CONTINUITY = ("rewritten_past", "rolled_back", "fork", "entries", "origin")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What a node showed; problem is None for one that agrees."""

    url: str
    size: int | None
    problem: str | None


@dataclass(slots=True, kw_only=True)
class Audit:
    """What an audit found.

    Attributes:
        size, root: of the checkpoint that the entries were compared with.
        replayed: entries that the rules accepted; fewer than size when they refused one.
        refused: index of the first entry that the rules refused; those behind it were not checked by them.
        kinds: accepted messages of each kind.
        verdicts: claims by outcome; "open" for those without one, "superseded" for verified ones that do not prevail.
        findings: what is wrong.
        remarks: what could not be checked, and is not wrong for that.
        attested: sizes whose times a quorum attests.
        unattested: sizes that were asked for and that no quorum attests.
        recomputed: claims whose votes were compared with a computation of this machine's.
        seed: what drew them; None when none were to be computed again.
    """

    origin: str
    size: int
    root: bytes
    trusted: TrustedCheckpoint
    replayed: int = 0
    refused: int | None = None
    kinds: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    bundles_fetched: int = 0
    nodes: list[NodeState] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    attested: int = 0
    unattested: int = 0
    recomputed: int = 0
    seed: int | None = None


async def audit_ledger(
    api: Api,
    memory: Memory,
    mirror: Mirror,
    evidence: EvidenceStore | None = None,
    show: Show = lambda _text: None,
    recomputation: "Recomputation | None" = None,
) -> Audit:
    """Download and check everything, and compare all nodes.

    Args:
        api: the nodes.
        memory: what this reader saw before; what he sees now is remembered when it continues that.
        mirror: where the entries are kept.
        evidence: where files that convict nodes are written; beside the memory by default.
        show: told what is being done.
        recomputation: how to compute votes again; None to take what the nodes counted.

    Raises:
        QuorumError: no node shows a checkpoint or gives the entries.
    """
    answers = await api.checkpoints()
    shown = shown_in(answers)
    show("downloading the entries")
    largest, fetched = await _download(api, mirror, list(shown.values()))
    findings, remarks = Findings(), list[str]()
    show(f"replaying {largest.size} entries")
    state, seen = _replay_shown(mirror, list(shown.values()), largest, findings)
    audit = _sum_up(state, seen.trusted, api.trust, findings)
    audit.bundles_fetched = fetched
    show("comparing the nodes")
    comparison = Comparison(api, state.tree, seen, evidence or memory.evidence)
    await _compare_nodes(comparison, shown, findings)
    _judge_larger(seen, largest, shown, findings, remarks)
    await _check_remembered(comparison, memory, findings, remarks)
    await _check_ahead(api, seen.size, findings, remarks)
    show("comparing the times")
    attestations = Attestations(api.trust, mirror, state.tree)
    if comparison.is_authoritative:
        attestations.load()
        await fetch_attestations(api, attestations, state)
        attestations.add(seen.trusted)
        for where, stray in attestations.strays.items():
            findings.add(await comparison.check("fork", where, stray))
        audit.attested, audit.unattested = check_times(attestations, state, findings, remarks)
        remarks += attestations.larger
        if recomputation is not None:
            audit.seed = recomputation.sample.seed
            audit.recomputed = await recomputation.run(state, mirror, findings, remarks, show)
    else:
        remarks.append(_NOT_THE_LOG)
    forked = {finding.where for finding in findings.all if finding.code == "fork"}
    audit.nodes = [_node_state(url, answer, forked) for url, answer in answers.items()]
    old = memory.recall(api.trust)
    if not findings.has(*_CONTINUITY) and (old is None or old.size < seen.size):
        memory.remember(seen)
    return _finish(audit, findings, remarks)


@without_garbage_collection()
def audit_mirror(mirror: Mirror, trust: TrustPolicy, evidence: EvidenceStore, *, memory: Memory | None = None) -> Audit:
    """Check an existing mirror without any network.

    Args:
        mirror: the copy of the entries.
        trust: whom the reader trusts.
        evidence: where files that convict nodes are written.
        memory: what this reader saw before.

    Raises:
        InvalidError: the file that remembers was damaged.
        ConsistencyError: code mirror, the mirror's checkpoint is damaged, so nothing is known of what it holds.
        UntrustedError: the policy does not vouch for the mirror's checkpoint.
        OSError: a file is missing.
    """
    seen = _kept_checkpoint(mirror, trust)

    damages = Findings()

    def examine(state: Replay) -> Audit:
        findings = Findings()
        for damage in damages.all:
            findings.add(damage)
        return _examine_mirror(state, seen, mirror, trust=trust, evidence=evidence, memory=memory, findings=findings)

    return _replay(mirror, seen.size, damages, examine)


def _examine_mirror(  # noqa: PLR0913 (what an audit is made of)
    state: Replay,
    seen: SeenCheckpoint,
    mirror: Mirror,
    *,
    trust: TrustPolicy,
    evidence: EvidenceStore,
    memory: Memory | None,
    findings: Findings,
) -> Audit:
    remarks = unchecked(seen.trusted)
    audit = _sum_up(state, seen.trusted, trust, findings)
    attestations = Attestations(trust, mirror, state.tree)
    comparison = Comparison(None, state.tree, seen, evidence)
    if comparison.is_authoritative:
        attestations.load()
        attestations.add(seen.trusted)
        for path in attestations.damaged:
            findings.add(Finding(code="mirror", where=str(path), what="it holds no valid signed checkpoints"))
        for where, other in attestations.strays.items():
            findings.add(comparison.check_offline("fork", where, other))
        audit.attested, audit.unattested = check_times(attestations, state, findings, remarks)
        remarks += attestations.larger
        remarks += [
            f"{path}: some signatures are by keys that the policy does not name and were not checked"
            for path in sorted(attestations.unchecked)
        ]
    else:
        remarks.append(_NOT_THE_LOG)
    old = None if memory is None else memory.recall(trust)
    kept = None if memory is None else memory.recall_note(trust.origin)
    if memory is not None and old is not None and kept is not None:
        findings.add(comparison.check_offline("rewritten_past", str(memory.path(trust.origin)), kept))
        if old.size > seen.size:
            remarks.append(not_compared(old))
    return _finish(audit, findings, remarks)


def _kept_checkpoint(mirror: Mirror, trust: TrustPolicy) -> SeenCheckpoint:
    path = mirror.checkpoint
    try:
        note = mirror.load_checkpoint()
        return SeenCheckpoint(note=note, trusted=trust.check(Note.parse(note)))
    except UntrustedError as error:
        raise UntrustedError(f"{path}: {error}", code=error.code) from error
    except (RefusedError, MalformedError, InputError) as error:
        message = f"{path}: the copy's signed checkpoint is damaged ({error}); audit again without --offline"
        raise ConsistencyError(message, code="mirror") from error


async def _download(api: Api, mirror: Mirror, shown: list[SeenCheckpoint]) -> tuple[SeenCheckpoint, int]:
    """Download the entries of the largest checkpoint whose entries the nodes give."""
    candidates = sorted(shown, key=lambda seen: seen.size, reverse=True)
    for place, seen in enumerate(candidates):
        try:
            return seen, await mirror.download(api, seen.note, seen.size)
        except RegistryError:
            if place + 1 == len(candidates) or candidates[-1].size == seen.size:
                raise
    raise QuorumError("no node shows a checkpoint", code="unavailable")


def _replay(mirror: Mirror, size: int, findings: Findings, examine: Callable[[Replay], Result]) -> Result:
    """Replay a mirror and examine what comes out; a damaged file of it is a finding before that."""

    def read() -> Iterator[bytes]:
        try:
            yield from mirror.entries(size)
        except ConsistencyError as error:
            findings.add(Finding(code="mirror", where=str(mirror.directory), what=str(error)))

    return replay_entries(read, size, examine)


def _unexamined(state: Replay) -> Replay:
    return state


def _replay_shown(
    mirror: Mirror, shown: list[SeenCheckpoint], largest: SeenCheckpoint, findings: Findings
) -> tuple[Replay, SeenCheckpoint]:
    """Replay the entries of the largest checkpoint that states their root; of the largest of all when none does."""
    state = _replay(mirror, largest.size, findings, _unexamined)
    own = [s for s in shown if s.size <= state.size and state.root_at(s.size) == s.trusted.checkpoint.root]
    seen = max(own, key=lambda one: (one.size, len(one.trusted.times_s)), default=largest)
    if seen.size < state.size:
        state = _replay(mirror, seen.size, findings, _unexamined)
    mirror.store_checkpoint(seen.note)
    return state, seen


async def _compare_nodes(comparison: Comparison, shown: dict[str, SeenCheckpoint], findings: Findings) -> None:
    """Compare what each node shows as the quorum's, and what it signed by itself at the same size."""
    for url, answer in shown.items():
        findings.add(await comparison.check("fork", url, answer.note))
    own = {} if comparison.api is None else await comparison.api.own_notes(comparison.seen.size)
    for url, note in own.items():
        if isinstance(note, Note):
            findings.add(await comparison.check("fork", url, str(note)))


def _judge_larger(
    seen: SeenCheckpoint,
    largest: SeenCheckpoint,
    shown: dict[str, SeenCheckpoint],
    findings: Findings,
    remarks: list[str],
) -> None:
    """Say what became of checkpoints that are larger than the one the entries have."""
    if findings.has("fork"):
        return
    if seen.size < largest.size:
        where = f"checkpoint of size {largest.size}"
        what = "it states another root than the entries that the nodes give"
        findings.add(Finding(code="entries", where=where, what=what))
    for url, answer in shown.items():
        if answer.size > largest.size:
            remarks.append(f"{url} shows a checkpoint of size {answer.size}, but no node gives its entries")


def _sum_up(state: Replay, trusted: TrustedCheckpoint, trust: TrustPolicy, findings: Findings) -> Audit:
    checkpoint = trusted.checkpoint
    refusal = state.refusal
    differs = state.size != checkpoint.size or state.root_at(checkpoint.size) != checkpoint.root
    if differs and not findings.has("mirror"):  # with a damaged mirror some entries are unknown, and so is the root
        findings.add(_damaged_copy(state, checkpoint.size))
    if refusal is not None and not differs:
        what = f"the rules refuse it: {refusal.detail}"
        findings.add(Finding(code=refusal.code, where=f"entry {refusal.index}", what=what))
    if state.ledger.size and state.ledger.origin != trust.origin:
        what = f"the log's genesis names {state.ledger.origin}, not {trust.origin}"
        findings.add(Finding(code="origin", where="entry 0", what=what))
    return Audit(
        origin=trust.origin,
        size=checkpoint.size,
        root=checkpoint.root,
        trusted=trusted,
        replayed=state.ledger.size,
        refused=None if refusal is None else refusal.index,
        kinds=state.kinds,
        verdicts=state.verdicts,
    )


def _damaged_copy(state: Replay, size: int) -> Finding:
    """The entries are not those that the nodes signed, so nothing in them says anything of a node."""
    what = f"it states another root than the {state.size} entries of this copy, so the copy is not the log"
    if state.refusal is not None:
        what += f"; entry {state.refusal.index}, which the rules refuse ({state.refusal.code}), accuses nobody for that"
    return Finding(code="entries", where=f"checkpoint of size {size}", what=what)


async def _check_remembered(comparison: Comparison, memory: Memory, findings: Findings, remarks: list[str]) -> None:
    if comparison.api is None:
        return
    trust = comparison.api.trust
    old, note = memory.recall(trust), memory.recall_note(trust.origin)
    if old is None or note is None:
        return
    where = str(memory.path(trust.origin))
    if old.size <= comparison.seen.size:
        findings.add(await comparison.check("rewritten_past", where, note))
        return
    try:
        await check_still_there(comparison.api, old, memory)
    except AlarmError as error:
        findings.add(Finding(code=error.code, where=where, what=str(error), evidence=error.evidence))
    except QuorumError as error:
        remarks.append(str(error))


async def _check_ahead(api: Api, size: int, findings: Findings, remarks: list[str]) -> None:
    """Look whether a node shows entries that no quorum cosigned, although enough nodes answer to do so."""
    ahead: dict[int, list[str]] = {}
    for url, said in (await api.nodes()).items():
        claimed = said.get("size") if isinstance(said, dict) else None
        if isinstance(claimed, int) and claimed > size:
            ahead.setdefault(claimed, []).append(url)
    for claimed in sorted(ahead)[:_SIZES_AHEAD_MAX]:
        answers = await api.own_notes(claimed, wait_s=int(min(_WAIT_S, api.transport.timing.patience_s)))
        if _is_cosigned(api.trust, [note for note in answers.values() if isinstance(note, Note)]):
            continue
        urls = ", ".join(ahead[claimed])
        there = [answer for answer in answers.values() if not isinstance(answer, QuorumError)]
        if len(there) >= max(1, quorum_size(api.trust)):
            what = f"it shows {claimed} entries, but a quorum of nodes cosigned only {size}, and enough of them answer"
            findings.add(Finding(code="not_cosigned", where=urls, what=what))
        else:
            remarks.append(f"{urls}: {claimed - size} more entries, not cosigned yet; too few nodes answer")


def _is_cosigned(trust: TrustPolicy, notes: list[Note]) -> bool:
    for text in {note.text for note in notes}:
        lines = {(line.name, line.key_id): line for note in notes if note.text == text for line in note.signatures}
        try:
            trust.check(Note(text, tuple(lines.values())))
        except (UntrustedError, RefusedError):
            continue
        return True
    return False


def _node_state(url: str, answer: SeenCheckpoint | RegistryError, forked: set[str]) -> NodeState:
    if isinstance(answer, RegistryError):
        return NodeState(url=url, size=None, problem=" ".join(str(answer).split()))
    return NodeState(url=url, size=answer.size, problem="signed another past" if url in forked else None)


def _finish(audit: Audit, findings: Findings, remarks: list[str]) -> Audit:
    if findings.left_out:
        remarks.append(f"{findings.left_out} more findings of the same kinds are left out")
    audit.findings, audit.remarks = findings.all, remarks
    return audit
