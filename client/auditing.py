"""The audit: download every entry, replay every rule, compare every node (DESIGN 8).

No node is believed. The entries are applied again by the rulebook, so signatures, order, keys and votes are checked;
their Merkle root must be the one in every checkpoint that any node shows, and in the one that this reader saw before;
the times that they state must fit the cosignatures around them. Whatever does not is a finding. The replay of the rules
ends at the first entry that they refuse; the comparison of nodes, memory and times goes on with what is known by then.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from client.api import Api, SeenCheckpoint, quorum_size
from client.attesting import Attestations, sizes_of_interest
from client.comparing import Comparison
from client.evidence import EvidenceStore
from client.findings import Finding, Findings
from client.memory import AlarmError, Memory, check_still_there, shown_in
from client.mirror import Mirror
from client.output import utc
from client.replaying import replay_entries
from registry.attestation import Chronology, Misdated
from registry.audit import Replay
from registry.errors import ConsistencyError, QuorumError, RefusedError, RegistryError, UntrustedError
from registry.note import Note
from registry.trust import TrustedCheckpoint, TrustPolicy

_WAIT_S = 5  # for a quorum to cosign what one node shows already
_SIZES_AHEAD_MAX = 4
_REFINEMENTS_MAX, _REFINED_AT_ONCE = 32, 64
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
        kinds: accepted messages of each kind.
        verdicts: claims by outcome; "open" for those without one, "superseded" for verified ones that do not prevail.
        findings: what is wrong.
        remarks: what could not be checked, and is not wrong for that.
        attested: sizes whose times a quorum attests.
        unattested: sizes that were asked for and that no quorum attests.
    """

    origin: str
    size: int
    root: bytes
    trusted: TrustedCheckpoint
    replayed: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    bundles_fetched: int = 0
    nodes: list[NodeState] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    attested: int = 0
    unattested: int = 0


async def audit_ledger(api: Api, memory: Memory, mirror: Mirror, evidence: EvidenceStore | None = None) -> Audit:
    """Download and check everything, and compare all nodes.

    Args:
        api: the nodes.
        memory: what this reader saw before; what he sees now is remembered when it continues that.
        mirror: where the entries are kept.
        evidence: where files that convict nodes are written; beside the memory by default.

    Raises:
        QuorumError: no node shows a checkpoint or gives the entries.
    """
    answers = await api.checkpoints()
    shown = shown_in(answers)
    largest, fetched = await _download(api, mirror, list(shown.values()))
    findings, remarks = Findings(), list[str]()
    state = _replay(mirror, largest.size, findings)
    seen = _reference(state, list(shown.values()), largest)
    if seen.size < state.size:
        state = _replay(mirror, seen.size, findings)
    mirror.store_checkpoint(seen.note)
    audit = _sum_up(state, seen.trusted, api.trust, findings)
    comparison = Comparison(api, state.tree, seen, evidence or memory.evidence)
    for url, answer in shown.items():
        findings.add(await comparison.check("fork", url, answer.note))
    for url, note in (await api.own_notes(seen.size)).items():
        if isinstance(note, Note):
            findings.add(await comparison.check("fork", url, str(note)))
    remarks += [
        f"{url} shows a checkpoint of size {answer.size}, but no node gives its entries"
        for url, answer in shown.items()
        if answer.size > largest.size and not findings.has("fork")
    ]
    if seen.size < largest.size and not findings.has("fork"):
        findings.add(_other_entries(largest))
    await _check_remembered(comparison, memory, findings, remarks)
    await _check_ahead(api, seen.size, findings, remarks)
    attestations = Attestations(api.trust, mirror, state.tree)
    if comparison.is_authoritative:
        attestations.load()
        await attestations.fetch(api, sizes_of_interest(state.ledger))
        attestations.add(seen.trusted)
        await _refine(api, attestations, state)
        for where, stray in attestations.strays.items():
            findings.add(await comparison.check("fork", where, stray))
    _check_times(audit, attestations, state, findings, remarks)
    forked = {finding.where for finding in findings.all if finding.code == "fork"}
    audit.nodes = [_node_state(url, answer, forked) for url, answer in answers.items()]
    old = memory.recall(api.trust.origin)
    if not findings.has(*_CONTINUITY) and (old is None or old.size < seen.size):
        memory.remember(seen)
    audit.bundles_fetched = fetched
    return _finish(audit, findings, remarks)


def audit_mirror(mirror: Mirror, trust: TrustPolicy, evidence: EvidenceStore) -> Audit:
    """Check an existing mirror without any network.

    Raises:
        RegistryError: the policy does not vouch for the mirror's checkpoint.
        OSError: a file is missing.
    """
    note = mirror.load_checkpoint()
    seen = SeenCheckpoint(note=note, trusted=trust.check(Note.parse(note)))
    findings, remarks = Findings(), list[str]()
    state = _replay(mirror, seen.size, findings)
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
    _check_times(audit, attestations, state, findings, remarks)
    return _finish(audit, findings, remarks)


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


def _replay(mirror: Mirror, size: int, findings: Findings) -> Replay:
    damages: list[ConsistencyError] = []

    def read() -> Iterator[bytes]:
        try:
            yield from mirror.entries(size)
        except ConsistencyError as error:
            damages.append(error)

    state = replay_entries(read, size)
    if damages:
        findings.add(Finding(code="mirror", where=str(mirror.directory), what=str(damages[0])))
    return state


def _reference(state: Replay, shown: list[SeenCheckpoint], largest: SeenCheckpoint) -> SeenCheckpoint:
    """The largest checkpoint that states the root of the entries; the largest of all when none does."""
    own = [s for s in shown if s.size <= state.size and state.root_at(s.size) == s.trusted.checkpoint.root]
    return max(own, key=lambda seen: (seen.size, len(seen.trusted.times_s)), default=largest)


def _other_entries(seen: SeenCheckpoint) -> Finding:
    where = f"checkpoint of size {seen.size}"
    return Finding(code="entries", where=where, what="it states another root than the entries that the nodes give")


def _sum_up(state: Replay, trusted: TrustedCheckpoint, trust: TrustPolicy, findings: Findings) -> Audit:
    checkpoint = trusted.checkpoint
    if state.refusal is not None:
        index, what = state.refusal.index, f"the rules refuse it: {state.refusal.detail}"
        findings.add(Finding(code=state.refusal.code, where=f"entry {index}", what=what))
    if state.ledger.size and state.ledger.origin != trust.origin:
        what = f"the log's genesis names {state.ledger.origin}, not {trust.origin}"
        findings.add(Finding(code="origin", where="entry 0", what=what))
    if findings.has("mirror"):
        pass  # the rest of the entries is unknown, and with it the root
    elif state.size != checkpoint.size or state.root_at(checkpoint.size) != checkpoint.root:
        where = f"checkpoint of size {checkpoint.size}"
        what = f"it states another root than the {state.size} entries"
        findings.add(Finding(code="entries", where=where, what=what))
    return Audit(
        origin=trust.origin,
        size=checkpoint.size,
        root=checkpoint.root,
        trusted=trusted,
        replayed=state.ledger.size,
        kinds=state.kinds,
        verdicts=Counter(_verdict_word(state, claim) for claim in state.ledger.claims()),
    )


def _verdict_word(state: Replay, claim: bytes) -> str:
    verdict = state.ledger.verdict(claim)
    if verdict.superseded_by is not None:
        return "superseded"
    return str(verdict.outcome or "open")


async def _check_remembered(comparison: Comparison, memory: Memory, findings: Findings, remarks: list[str]) -> None:
    origin = comparison.seen.trusted.checkpoint.origin
    old, note = memory.recall(origin), memory.recall_note(origin)
    if old is None or note is None or comparison.api is None:
        return
    where = str(memory.path(origin))
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
            findings.add(Finding(code="no_quorum", where=urls, what=what))
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


async def _refine(api: Api, attestations: Attestations, state: Replay) -> None:
    """Fetch the checkpoints just behind entries that seem backdated, which may clear them.

    Of the entries between two known sizes the last is looked at first: when it waited, so did those before it.
    """
    asked: set[int] = set()
    if not state.ledger.size:
        return
    for _ in range(_REFINEMENTS_MAX):
        last = {one.next_size: one.index for one in _misdated(attestations, state) if not one.is_settled}
        wanted = [index for index in last.values() if index not in asked][:_REFINED_AT_ONCE]
        if not wanted:
            return
        asked.update(wanted)
        await attestations.fetch(api, [size for index in wanted for size in (index, index + 1)])


def _misdated(attestations: Attestations, state: Replay) -> list[Misdated]:
    skew_s = state.ledger.policy.time_skew_s
    return Chronology(attestations.marks.values()).misdated(state.recorded_s, skew_s=skew_s)


def _check_times(
    audit: Audit, attestations: Attestations, state: Replay, findings: Findings, remarks: list[str]
) -> None:
    if not state.ledger.size:
        return
    wanted = sizes_of_interest(state.ledger) - {0}
    audit.attested = len(attestations.marks)
    audit.unattested = len(wanted - attestations.marks.keys())
    misdated = _misdated(attestations, state)
    for one in misdated:
        if one.is_settled:
            findings.add(_finding_of(one))
    unsettled = sum(not one.is_settled for one in misdated)
    if unsettled:
        remarks.append(f"{unsettled} entries may be backdated, but no checkpoint just behind them is attested")
    if audit.unattested:
        remarks.append(f"the times of {audit.unattested} of {len(wanted)} sizes are not attested by a quorum")


def _finding_of(one: Misdated) -> Finding:
    code, than = ("backdated", "had not been reached before") if one.is_early else ("postdated", "had been reached by")
    what = f"it says {utc(one.recorded_s)}, but size {one.bound_size} {than} {utc(one.bound_s)}, most nodes say"
    return Finding(code=code, where=f"entry {one.index}", what=what)


def _node_state(url: str, answer: SeenCheckpoint | RegistryError, forked: set[str]) -> NodeState:
    if isinstance(answer, RegistryError):
        return NodeState(url=url, size=None, problem=" ".join(str(answer).split()))
    return NodeState(url=url, size=answer.size, problem="signed another past" if url in forked else None)


def _finish(audit: Audit, findings: Findings, remarks: list[str]) -> Audit:
    if findings.left_out:
        remarks.append(f"{findings.left_out} more findings of the same kinds are left out")
    audit.findings, audit.remarks = findings.all, remarks
    return audit
