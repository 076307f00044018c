"""The audit of the entries' own times: are they where the nodes' cosignatures say? See `registry.attestation`."""

from client.api import Api
from client.audit.attesting import Attestations, sizes_of_interest
from client.audit.findings import Finding, Findings
from client.output import utc
from registry.attestation import Chronology, Misdated
from registry.audit import Replay

_ROUNDS_MAX, _ASKED_AT_ONCE = 32, 64


async def fetch_attestations(api: Api, attestations: Attestations, state: Replay) -> None:
    """Fetch the checkpoints that the entries' times are compared with.

    First those of interest. Then those just behind entries that seem backdated, which may clear them: of the entries
    between two known sizes the last is looked at first, for when it waited, so did those before it.
    """
    await attestations.fetch(api, sizes_of_interest(state.ledger))
    asked: set[int] = set()
    for _ in range(_ROUNDS_MAX):
        last = {one.next_size: one.index for one in _misdated(attestations, state) if not one.is_settled}
        wanted = [index for index in last.values() if index not in asked][:_ASKED_AT_ONCE]
        if not wanted:
            return
        asked.update(wanted)
        await attestations.fetch(api, [size for index in wanted for size in (index, index + 1)])


def check_times(attestations: Attestations, state: Replay, findings: Findings, remarks: list[str]) -> tuple[int, int]:
    """Compare the entries' times; return how many sizes are attested, and how many of interest are not."""
    wanted = sizes_of_interest(state.ledger) - {0}
    unattested = len(wanted - attestations.marks.keys())
    misdated = _misdated(attestations, state)
    for one in misdated:
        if one.is_settled:
            findings.add(_finding_of(one))
    unsettled = sum(not one.is_settled for one in misdated)
    if unsettled:
        remarks.append(f"perhaps backdated, but no checkpoint just behind is attested: {unsettled} entries")
    void = sum(mark.is_void for mark in attestations.marks.values())
    if void:
        remarks.append(
            f"{void} cosigned checkpoints bound no entry's time: too few of the policy's cosigners signed them"
        )
    if unattested:
        remarks.append(f"the times of {unattested} of {len(wanted)} sizes are not attested by a quorum")
    return len(attestations.marks), unattested


def _misdated(attestations: Attestations, state: Replay) -> list[Misdated]:
    return Chronology(attestations.marks.values()).misdated(state.recorded_s, skew_s=state.skew_s)


def _finding_of(one: Misdated) -> Finding:
    code, than = ("backdated", "had not been passed before") if one.is_early else ("postdated", "had been reached by")
    what = f"it says {utc(one.recorded_s)}, but size {one.bound_size} {than} {utc(one.bound_s)}, most nodes say"
    return Finding(code=code, where=f"entry {one.index}", what=what)
