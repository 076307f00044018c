"""`wmreg measure`: what the nodes would measure, on the owner's own machine and before anything is revealed."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.errors import DONE, INVALID, InputError
from client.output import Report

if TYPE_CHECKING:
    from registry.verdict import Measurement


_COUNTED = {
    "signs": "signs of weights are as the key demands",
    "integrity": "triggers answered as by the published model",
}


@click.command("measure", epilog="Example:  wmreg measure suspect.safetensors --evidence mymodel --controls")
@click.argument("model", type=options.FILE)
@click.option("--evidence", "directory", type=options.DIRECTORY, required=True, help="Directory that embed made.")
@click.option("--controls", is_flag=True, help="Run the nodes' control tests too, and say how they would vote.")
@click.option(
    "--control",
    "public",
    type=options.FILE,
    multiple=True,
    help="Public weights (safetensors) to hold the mark against, as nodes may do; with --controls, and repeatable.",
)
@options.device
@options.as_json
def command(model: Path, directory: Path, device: str, *, controls: bool, public: tuple[Path, ...]) -> Report:
    """Count the triggers of the mark in the --evidence directory that MODEL answers.

    Of frontier_stitching, its paper's θ is told beside the p-value, which --controls measures on the null models.

    No ledger is asked and nothing is revealed. What an owner does before he claims. A base that the evidence declares
    is among the control tests, as it is with the nodes.

    Exit codes: 0 it was counted, whatever the count is; with --controls 0 if nodes would vote VERIFIED, or
    INTACT for a mark of integrity, else 1.
    """
    from client.bundle import open_bundle
    from client.marking.measuring import Trial, measure
    from client.progress import phases

    if public and not controls:
        raise InputError("--control: only together with --controls")
    bundle = open_bundle(directory)
    with phases() as show:
        measurement = measure(model, bundle, Trial(controls=controls, device=device, public=public), show)
    document: dict[str, object] = {
        "statistic": str(measurement.statistic),
        "chance_ppm": measurement.chance_ppm,
        "matched": measurement.matched,
        "total": measurement.total,
        "p_value": measurement.p_value,
        "aligned": measurement.aligned,
        "matched_unaligned": measurement.matched_unaligned,
    }
    what = _COUNTED.get(measurement.statistic, "triggers answered as the key demands")
    text = f"{measurement.matched} of {measurement.total} {what}{_chance(measurement, controls=controls)}"
    if (paper := _papers_test(measurement)) is not None:
        document |= {"theta": paper.theta, "accepted_by_theta": paper.accepts}
        text += f"\n{paper}"
    if measurement.aligned:
        text += f"\n{_before(measurement.matched_unaligned)}"
    if not controls:
        return Report(document=document, text=text)
    return _with_controls(measurement, document, text)


def _chance(measurement: "Measurement", *, controls: bool) -> str:
    from registry.verdict import Statistic

    if measurement.p_value is None:
        return ""
    if measurement.statistic is Statistic.CALIBRATED and not controls:
        return " (what that is worth is measured on null models: --controls)"
    return f" (chance: p = {measurement.p_value})"


@dataclass(frozen=True, slots=True)
class _PapersTest:
    """Frontier stitching's own test, for which a model without the mark is a coin.

    Attributes:
        theta: the most mismatches with which it calls a model the owner's.
        mismatches: that were found, of so many triggers.
    """

    theta: int
    mismatches: int
    total: int

    @property
    def accepts(self) -> bool:
        """Whether it calls this model the owner's."""
        return self.mismatches <= self.theta

    def __str__(self) -> str:
        says = "the owner's" if self.accepts else "not the owner's"
        return (
            f"the paper's test, at most θ = {self.theta} mismatches of {self.total}: {self.mismatches}, {says}; "
            "it takes honest models for coins, and nodes do not use it"
        )


def _papers_test(measurement: "Measurement") -> _PapersTest | None:
    from registry.verdict import Statistic

    if measurement.statistic is not Statistic.CALIBRATED:
        return None
    from client.marking.measuring import theta

    total = measurement.total
    return _PapersTest(theta(total), total - measurement.matched, total)


def _before(matched: int | None) -> str:
    was = "the model has more or fewer" if matched is None else f"as it is, the model answers {matched}"
    return f"this is after its channels were aligned to those of the published model; {was}"


def _with_controls(measurement: "Measurement", document: dict[str, object], text: str) -> Report:
    from client.claim_state import explained
    from registry.policy import Thresholds
    from registry.verdict import WON, ControlKind, judge

    outcome, reason = judge(measurement, Thresholds())
    fresh = [control.matched for control in measurement.controls if control.kind is ControlKind.FRESH]
    known = [control for control in measurement.controls if control.kind is not ControlKind.FRESH]
    lines = [
        text,
        *_permuted(measurement),
        *([f"{max(fresh)} by the best of {len(fresh)} unrelated networks"] if fresh else []),
        *(f"{control.matched} by a control of kind {control.kind}" for control in known),
        f"nodes with the usual thresholds would vote {outcome}: {explained(outcome, reason)}",
    ]
    found = {"measurement": measurement.to_value(), "outcome": str(outcome), "reason": reason}
    exit_code = DONE if outcome in WON else INVALID
    return Report(document=document | found, text="\n".join(lines), exit_code=exit_code)


def _permuted(measurement: "Measurement") -> list[str]:
    from registry.verdict import Statistic

    if measurement.statistic is not Statistic.BRANCH:
        return []
    return [f"{measurement.permutations_as_good} of {measurement.permutations} channel permutations answer as many"]
