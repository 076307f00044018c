"""The audit of the entries' own times: are they where the nodes' cosignatures say?

See `registry.attestation` for what convicts an entry, and `registry.inquiry` for what draws suspicion on one.
"""

from collections.abc import Iterator

from client.api import Api
from client.audit.attesting import Attestations, sizes_of_interest
from client.audit.findings import Finding, Findings
from client.output import utc
from registry.attestation import LATEST_S, Bracket, Chronology, Misdated
from registry.audit import Replay
from registry.inquiry import Inquiry, LateVote

QUESTIONS_MAX = 4096  # sizes asked for beyond those of interest; a mirror keeps the answers, so the next audit goes on
_ROUNDS_MAX, _ASKED_AT_ONCE = 64, 256
_NAMED_MAX = 8  # of one remark


async def fetch_attestations(api: Api, attestations: Attestations, state: Replay) -> None:
    """Fetch the checkpoints that the entries' times are compared with: those of interest, then where it seems wrong."""
    await attestations.fetch(api, sizes_of_interest(state.ledger))
    inquiry, asked = Inquiry(state), set[int]()
    for number in range(_ROUNDS_MAX):
        wanted = [
            size for size in inquiry.sizes_to_ask(_chronology(attestations), each=1 << number) if size not in asked
        ]
        wanted = wanted[: min(_ASKED_AT_ONCE, QUESTIONS_MAX - len(asked))]
        if not wanted:
            return
        asked.update(wanted)
        await attestations.fetch(api, wanted)


def check_times(attestations: Attestations, state: Replay, findings: Findings, remarks: list[str]) -> tuple[int, int]:
    """Compare the entries' times; return how many sizes are attested, and how many of interest are not."""
    wanted = sizes_of_interest(state.ledger) - {0}
    unattested = len(wanted - attestations.marks.keys())
    inquiry, chronology = Inquiry(state), _chronology(attestations)
    misdated = inquiry.misdated(chronology)
    deadlines_s = {vote.index: vote.deadline_s for vote in inquiry.late_votes(chronology)}
    for one in misdated:
        if one.is_settled:
            findings.add(_finding_of(one, deadlines_s.get(one.index)))
    remarks += _open_questions(inquiry, chronology, misdated)
    void = sum(mark.is_void for mark in attestations.marks.values())
    if void:
        remarks.append(
            f"{void} cosigned checkpoints bound no entry's time: too few of the policy's cosigners signed them"
        )
    if unattested:
        remarks.append(f"the times of {unattested} of {len(wanted)} sizes are not attested by a quorum")
    remarks += _bounds(chronology, state, {one.index for one in misdated})
    return len(attestations.marks), unattested


def _chronology(attestations: Attestations) -> Chronology:
    return Chronology(attestations.marks.values())


def _finding_of(one: Misdated, deadline_s: int | None) -> Finding:
    """Name a misdated entry.

    Args:
        one: the entry.
        deadline_s: of its claim, for a vote that is not attested to have come by then.
    """
    code, than = ("backdated", "had not been passed before") if one.is_early else ("postdated", "had been reached by")
    what = f"it says {utc(one.recorded_s)}, but size {one.bound_size} {than} {utc(one.bound_s)}, most nodes say"
    if deadline_s is not None:
        what += f"; it is a vote, and its claim's deadline was {utc(deadline_s)}"
    return Finding(code=code, where=f"entry {one.index}", what=what)


def _open_questions(inquiry: Inquiry, chronology: Chronology, misdated: list[Misdated]) -> Iterator[str]:
    """What seems wrong and is not proven."""
    unsettled = [one.index for one in misdated if not one.is_settled]
    if unsettled:
        yield f"perhaps backdated, but no checkpoint just behind is attested: {_entries(unsettled)}"
    undecided = inquiry.undecided(chronology)
    if undecided:
        yield (
            f"the times of {len(undecided)} entries, from entry {undecided[0]} to {undecided[-1]}, contradict each"
            " other or a checkpoint, and no checkpoint that would tell which are wrong is attested"
        )
    settled = {one.index for one in misdated}
    late = [vote for vote in inquiry.late_votes(chronology) if vote.index not in settled]
    for vote in late[:_NAMED_MAX]:
        yield _late(vote)
    if len(late) > _NAMED_MAX:
        yield f"{len(late) - _NAMED_MAX} more votes are not attested to have come by their claims' deadlines"


def _late(vote: LateVote) -> str:
    by = "no checkpoint has it" if vote.by_s is None else f"the first checkpoint that has it is of {utc(vote.by_s)}"
    return (
        f"entry {vote.index}: a vote that says {utc(vote.recorded_s)}; the deadline of claim {vote.claim.hex()} was"
        f" {utc(vote.deadline_s)}, and {by}: it waited for a quorum, or it is late"
    )


def _bounds(chronology: Chronology, state: Replay, misdated: set[int]) -> Iterator[str]:
    """How far apart the bounds of times are that nothing contradicts."""
    loose: list[Bracket] = []
    waited: list[tuple[int, int]] = []
    for bracket in chronology.brackets(len(state.recorded_s)):
        waited += _waits(bracket, state, misdated)
        if bracket.last > bracket.first or bracket.by_s == LATEST_S:  # else its one entry has a checkpoint
            loose.append(bracket)
    widest = max(loose, key=lambda bracket: bracket.by_s - bracket.after_s, default=None)
    if widest is not None and widest.by_s - widest.after_s > 2 * state.skew_s[widest.first]:
        count = sum(bracket.last - bracket.first + (bracket.by_s == LATEST_S) for bracket in loose)
        yield (
            f"{count} entries have no cosigned checkpoint of their own here; what they say of their times is bounded by"
            f" those further away, least for entries {widest.first} to {widest.last}: {_span(widest)}"
        )
    if waited:
        longest_s, index = max(waited)
        yield (
            f"{_entries([index for _, index in waited])}: ordered later than recorded, entry {index} by"
            f" {_duration(longest_s)}: they waited for a quorum, or are backdated by as much; nothing tells which"
        )


def _waits(bracket: Bracket, state: Replay, misdated: set[int]) -> list[tuple[int, int]]:
    """Entries that were ordered long after their own times, with by how much, seconds."""
    found = []
    for index in range(bracket.first, bracket.last + 1):
        ordered_s = bracket.behind_s if index == bracket.last else bracket.after_s
        wait_s = ordered_s - state.recorded_s[index]
        if wait_s > 2 * state.skew_s[index] and index not in misdated:
            found.append((wait_s, index))
    return found


def _span(bracket: Bracket) -> str:
    if not bracket.is_bounded:
        return f"by {utc(bracket.by_s)}" if bracket.by_s < LATEST_S else f"after {utc(bracket.after_s)}"
    return f"from {utc(bracket.after_s)} to {utc(bracket.by_s)}, {_duration(bracket.by_s - bracket.after_s)}"


def _duration(seconds: int) -> str:
    """A span of time in the largest unit of which it has two."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds} s"


def _entries(indexes: list[int]) -> str:
    """Some entries by their indexes, and how many there are."""
    named = ", ".join(str(index) for index in indexes[:_NAMED_MAX])
    more = f" and {len(indexes) - _NAMED_MAX} more" if len(indexes) > _NAMED_MAX else ""
    return f"{'entries' if len(indexes) > 1 else 'entry'} {named}{more}"
