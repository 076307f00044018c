"""`wmreg measure`: what the nodes would measure, on the owner's own machine and before anything is revealed."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.errors import DONE, INVALID
from client.output import Report

if TYPE_CHECKING:
    from registry.verdict import Measurement


@click.command("measure", epilog="Example:  wmreg measure suspect.safetensors --evidence mymodel --controls")
@click.argument("model", type=options.FILE)
@click.option("--evidence", "directory", type=options.DIRECTORY, required=True, help="Directory that embed made.")
@click.option("--controls", is_flag=True, help="Run the nodes' control tests too, and say how they would vote.")
@options.device
@options.as_json
def command(model: Path, directory: Path, device: str, *, controls: bool) -> Report:
    """Count the triggers of the mark in the --evidence directory that MODEL answers.

    No ledger is asked and nothing is revealed. What an owner does before he claims.

    Exit codes: 0 it was counted, whatever the count is; with --controls 0 if nodes would vote VERIFIED, else 1.
    """
    from client.bundle import open_bundle
    from client.measuring import Trial, measure
    from client.progress import phases
    from registry.verdict import p_value

    bundle = open_bundle(directory)
    with phases() as show:
        measurement = measure(model, bundle, Trial(controls=controls, device=device), show)
    p = p_value(measurement.matched, measurement.total)
    document: dict[str, object] = {
        "matched": measurement.matched,
        "total": measurement.total,
        "p_value": p,
        "aligned": measurement.aligned,
        "matched_unaligned": measurement.matched_unaligned,
    }
    text = f"{measurement.matched} of {measurement.total} triggers answered as the key demands (chance: p = {p})"
    if measurement.aligned:
        text += f"\n{_before(measurement.matched_unaligned)}"
    if not controls:
        return Report(document=document, text=text)
    return _with_controls(measurement, document, text)


def _before(matched: int | None) -> str:
    was = "the model has more or fewer" if matched is None else f"as it is, the model answers {matched}"
    return f"this is after its channels were aligned to those of the published model; {was}"


def _with_controls(measurement: "Measurement", document: dict[str, object], text: str) -> Report:
    from client.claim_state import REASONS
    from registry.policy import Thresholds
    from registry.verdict import Outcome, judge

    outcome, reason = judge(measurement, Thresholds())
    best = max(control.matched for control in measurement.controls)
    lines = [
        text,
        f"{measurement.permutations_as_good} of {measurement.permutations} channel permutations answer as many",
        f"{best} triggers answered by the best of {len(measurement.controls)} unrelated networks",
        f"nodes with the usual thresholds would vote {outcome}: {REASONS.get(reason, reason)}",
    ]
    found = {"measurement": measurement.to_value(), "outcome": str(outcome), "reason": reason}
    exit_code = DONE if outcome is Outcome.VERIFIED else INVALID
    return Report(document=document | found, text="\n".join(lines), exit_code=exit_code)
