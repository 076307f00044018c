"""`wmreg attack`: what a thief would do to a marked model, and what would be left of the mark."""

import contextlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client import options
from client.errors import InputError
from client.files import read_text, staged_directory, write_atomic
from client.marking.task import MEASURES, Task
from client.output import Report, table

if TYPE_CHECKING:
    from client.bundle import Bundle

REPORT_BYTES_MAX = 16 * 2**20
STRENGTHS_MAX = 32
THIEFS_FRACTION = 0.1


@click.command("attack", epilog="Example:  wmreg attack mymodel --attack permutation,ftal --out attacked")
@click.argument("directory", metavar="BUNDLE", type=options.DIRECTORY)
@click.option("--attack", "names", required=True, help="Names with commas between them, or all; see docs/attacks.md.")
@click.option("--strength", "strengths", help="Numbers with commas between them.  [default: each attack's usual ones]")
@click.option("--data", help="The thief's data, as of wmreg embed.  [default: what the model was trained on]")
@click.option(
    "--fraction",
    type=options.FiniteRange(0, 1, min_open=True),
    default=THIEFS_FRACTION,
    show_default=True,
    help="Share of the training set that the thief has.",
)
@click.option("--seed", type=click.IntRange(0, options.SEED_MAX), default=0, show_default=True, help="Of the attacks.")
@click.option("--go-on", is_flag=True, help="Go on to stronger attacks when the mark has failed.")
@click.option("--out", type=options.NEW_DIRECTORY, help="Directory to make for attack.json and attack.png.")
@click.option("--keep-models", is_flag=True, help="Keep the attacked models in --out too.")
@options.device
@options.as_json
def command(  # noqa: PLR0913 (one parameter for each option)
    *,
    directory: Path,
    names: str,
    strengths: str | None,
    data: str | None,
    fraction: float,
    seed: int,
    go_on: bool,
    out: Path | None,
    keep_models: bool,
    device: str,
) -> Report:
    """Attack the model in BUNDLE, a directory that `wmreg embed` made, and measure it as nodes would.

    Each attack grows stronger until nodes with the usual thresholds would no longer vote VERIFIED (INTACT for a mark
    of integrity). Forgeries, evidence
    for marks that nobody embedded, are judged in the same way. No ledger is asked and nothing is revealed. What cannot
    be done to such a network is told with the reason, and the others are done.

    Exit codes: 0 the attacks were run, whatever came of them; 1 none of them can be done to such a network.
    """
    from client.bundle import open_bundle
    from client.marking.attacking import Plan, methods_of, run
    from client.progress import phases

    if keep_models and out is None:
        raise InputError("--keep-models: where? give --out as well")
    bundle, chosen = open_bundle(directory), _numbers(strengths)
    methods = methods_of([name.strip() for name in names.split(",")], chosen)
    task = Task(
        data=data or _trained_on(bundle),
        fraction=fraction,
        arch="",  # the evidence names it
        weights=None,
        seed=seed,
        epochs=None,
        device=device,
        words=bundle.words if bundle.words.is_file() else None,
    )
    with staged_directory(out) if out else contextlib.nullcontext() as staging, phases() as show:
        models = staging if keep_models else None
        plan = Plan(bundle=bundle, methods=methods, strengths=chosen, task=task, goes_on=go_on, models=models)
        report = run(plan, show)
        if staging is not None:
            _write(report, staging)
    where = "" if out is None else f"\n\nreport  {out / 'attack.json'}\ncurves  {out / 'attack.png'}"
    return Report(document=report, text=_text(report) + where)


def _numbers(words: str | None) -> tuple[float, ...]:
    """Read the strengths; raises InputError."""
    if words is None:
        return ()
    try:
        numbers = tuple(float(word) for word in words.split(","))
    except ValueError as error:
        raise InputError(f"--strength {words}: not numbers with commas between them, such as 0.1,0.5") from error
    if len(numbers) > STRENGTHS_MAX or not all(map(math.isfinite, numbers)):
        raise InputError(f"--strength: at most {STRENGTHS_MAX} finite numbers")
    return numbers


def _trained_on(bundle: "Bundle") -> str:
    """What the report of the embedding says; raises InputError where there is none that says it."""
    hint = "say with --data what the model was trained on"
    try:
        told = json.loads(read_text(bundle.report, REPORT_BYTES_MAX))
    except (OSError, ValueError) as error:
        raise InputError(f"{bundle.report}: cannot be read; {hint}") from error
    data = told.get("data") if isinstance(told, dict) else None
    if not isinstance(data, str):
        raise InputError(f"{bundle.report}: names no data; {hint}")
    return data


def _write(report: dict[str, Any], directory: Path) -> None:
    from client.marking.attack_plot import plot_attacks

    write_atomic(directory / "attack.json", (json.dumps(report, indent=1) + "\n").encode())
    plot_attacks(report, directory / "attack.png")


def _text(report: dict[str, Any]) -> str:
    marked, measure = report["marked"], MEASURES[report["measure"]]
    lines = [f"before any attack: {measure} {marked['task_accuracy']:.2%}, {_verdict(marked)}"]
    for attack in report["attacks"]:
        lines += ["", f"{attack['name']}: {attack['summary']}", *_curve(attack, measure)]
        if attack["fails_at"] is None:
            lines.append("The mark held.")
        else:
            at = f"strength {attack['fails_at']:g}, with a {measure} of {attack['task_accuracy_at_failure']:.2%}"
            lines.append(f"The mark failed at {at}.")
    for forgery in report["forgeries"]:
        lines += ["", f"{forgery['name']}: {forgery['summary']}", *_curve(forgery, measure)]
        passed = ", ".join(f"{strength:g}" for strength in forgery["passes_at"])
        lines.append(f"The numbers alone would convict at {passed}." if passed else "No node would vote VERIFIED.")
    if report["left_out"]:
        lines += [
            "",
            f"Left out, since they begin with a head, which this mark has not: {', '.join(report['left_out'])}.",
        ]
    if report["refused"]:
        lines += ["", "Refused, since they cannot be done to this network or with these data:"]
        lines += [f"  {refused['name']}: {refused['reason']}" for refused in report["refused"]]
    return "\n".join(lines)


def _curve(method: dict[str, Any], measure: str) -> list[str]:
    rows = [
        [f"{point['strength']:g}", f"{point['task_accuracy']:.2%}", _count(point), point["outcome"], point["reason"]]
        for point in method["points"]
    ]
    told = table(["strength", measure, "matched", "verdict", "reason"], rows)
    return [f"strength: {method['strength']}", told]


def _count(point: dict[str, Any]) -> str | None:
    if point["matched"] is None:
        return None
    if not point["aligned"]:
        return f"{point['matched']} of {point['total']}"
    before = point["matched_unaligned"]
    return f"{point['matched']} of {point['total']}, aligned" + ("" if before is None else f" from {before}")


def _verdict(point: dict[str, Any]) -> str:
    return f"{_count(point)} matched, {point['outcome']} ({point['reason']})"
