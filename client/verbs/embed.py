"""`wmreg embed`: make a watermarked model and everything that will prove it."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

import click

from client import options
from client.errors import InputError
from client.files import check_output, sha256_file, staged_directory
from client.marking.task import MEASURES, Task, hidden_by_renumbering, measured_by, unlearnt
from client.output import Report

if TYPE_CHECKING:
    from client.keystore import WatermarkKeyFile
    from client.marking.savepoints import Savepoints

MTLSIGN = "mtlsign"
SCHEMES = (MTLSIGN, "frontier_stitching", "margin", "locked_parameters", "fragile")  # wm.schemes.catalogue has them


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recipe:
    """What is embedded, and how."""

    scheme: str
    quick: bool
    single_precision: bool
    savepoints: "Savepoints | None"
    keep_clean: bool
    changes: dict[str, Any]


@click.command("embed", epilog="Example:  wmreg embed --arch resnet18 --data digits --out mymodel")
@options.task
@options.savepoint
@click.option(
    "--base",
    type=options.FILE,
    help="Public weights (safetensors) that the model comes from: they are kept out of the mark, and nodes check it.",
)
@click.option(
    "--scheme",
    type=click.Choice(SCHEMES),
    default=MTLSIGN,
    show_default=True,
    help="Watermark scheme; docs/schemes.md tells which is for whom.",
)
@click.option("--quick", is_flag=True, help="The scheme's recipe for a CPU, not its paper's; not for mtlsign.")
@click.option(
    "--single-precision",
    is_flag=True,
    help="Of fragile: finer triggers, for who asks in float32 without TF32, as nodes do with a model's file.",
)
@click.option(
    "--taps",
    metavar="MODULE,...",
    help="Of mtlsign: where the mark is read, up to 16 modules by their paths.  [default: by the network]",
)
@click.option(
    "--theta",
    type=options.FiniteRange(0, min_open=True),
    help="Of mtlsign: how far the weights may move, the paper's θ = 1/λ1; less is more covert, and less of a mark.  "
    "[default: 10, with --base 100]",
)
@click.option(
    "--watermarks",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="How many, one for each claim that you expect: a claim makes its watermark key public.",
)
@click.option("--keep-clean", is_flag=True, help="Keep the model before the embedding too.")
@click.option("--out", type=options.NEW_DIRECTORY, required=True, help="Directory to make.")
@options.signing_key
@options.policy
@options.as_json
def command(  # noqa: PLR0913 (one parameter for each option)
    *,
    task: Task,
    savepoint: Path | None,
    savepoint_s: float,
    scheme: str,
    quick: bool,
    single_precision: bool,
    taps: str | None,
    theta: float | None,
    watermarks: int,
    keep_clean: bool,
    out: Path,
    signing_key_path: Path,
    policy_path: Path,
) -> Report:
    """Train or fine-tune a model with a watermark that is bound to your signing key and to one ledger.

    The scheme fragile proves that a model is unchanged, the others whose it is.

    Writes the marked model, the evidence, the watermark key and a report into --out. Only the model may ever be
    given away, and only after `wmreg publish`.

    If the model comes from weights that anybody can have, name those with --base, or others who fine-tuned them may be
    taken for thieves. Training begins there, unless --weights names a model that you already fine-tuned from them. The
    base is declared in the evidence, copied into --out, and uploaded with a claim. --weights alone is for a model of
    your own that nobody else has.
    """
    _check_options(
        scheme,
        quick=quick,
        single_precision=single_precision,
        only_mtlsign={
            "--savepoint": savepoint is not None,
            "--taps": taps is not None,
            "--theta": theta is not None,
            "--watermarks": watermarks > 1,
        },
    )
    changes = _changes(taps, theta)
    check_output(out)
    origin = options.load_policy(policy_path).origin
    private_key = options.load_key(signing_key_path)

    from client.keystore import create_watermark_key
    from client.marking.savepoints import kept_in

    with kept_in(savepoint, every_s=savepoint_s, out=out) as savepoints:
        key_files = [
            create_watermark_key(private_key, origin=origin)
            if savepoints is None
            else savepoints.watermark_key(number, private_key, origin=origin)
            for number in range(watermarks)
        ]
        recipe = _Recipe(
            scheme=scheme,
            quick=quick,
            single_precision=single_precision,
            savepoints=savepoints,
            keep_clean=keep_clean,
            changes=changes,
        )
        made = _make(task, key_files, recipe, out=out)
    return _report(made, out)


def _check_options(scheme: str, *, quick: bool, single_precision: bool, only_mtlsign: dict[str, bool]) -> None:
    """Check that the options go with the scheme; raises InputError."""
    if scheme == MTLSIGN and quick:
        raise InputError("--quick: mtlsign has one recipe, which is for a CPU too")
    if scheme != "fragile" and single_precision:
        raise InputError("--single-precision: only with --scheme fragile")
    for name, is_given in only_mtlsign.items():
        if scheme != MTLSIGN and is_given:
            raise InputError(f"{name}: only with --scheme {MTLSIGN}")


def _changes(taps: str | None, theta: float | None) -> dict[str, Any]:
    """What the options change of the recipe of mtlsign; raises InputError."""
    changes: dict[str, Any] = {}
    if taps is not None:
        changes["taps"] = tuple(taps.split(","))
        if not all(changes["taps"]):
            raise InputError(f"--taps {taps}: module paths with commas between them, such as layer1,layer2")
    if theta is not None:
        changes["lambda1"] = 1 / theta
        if not math.isfinite(changes["lambda1"]):
            raise InputError(f"--theta {theta}: too near to 0")
    return changes


def _make(task: Task, key_files: "list[WatermarkKeyFile]", recipe: _Recipe, *, out: Path) -> dict[str, Any]:
    from client.bundle import Bundle
    from client.marking.embedding import embed, write_bundle
    from client.marking.scheme_bundle import embed_scheme, settings_of, write_scheme_bundle
    from client.progress import phases

    base_sha256 = None
    with staged_directory(out) as staging:
        bundle = Bundle(staging)
        if task.base is not None:
            task = replace(task, base=copyfile(task.base, bundle.base))
            base_sha256 = sha256_file(bundle.base)[0].hex()
        if recipe.scheme == MTLSIGN:
            with phases() as show:
                marked = embed(task, key_files, changes=recipe.changes, savepoints=recipe.savepoints, show=show)
            return write_bundle(bundle, marked, key_files, base_sha256=base_sha256, keep_clean=recipe.keep_clean)
        (key_file,) = key_files
        with phases() as show:
            settings = settings_of(recipe.scheme, quick=recipe.quick, single_precision=recipe.single_precision)
            made = embed_scheme(task, key_file, scheme=recipe.scheme, settings=settings, show=show)
        return write_scheme_bundle(bundle, made, key_file, base_sha256=base_sha256, keep_clean=recipe.keep_clean)


def _what_next(report: dict[str, Any], out: Path) -> str:
    """Say what to do with the mark; where nodes could not vote VERIFIED on it, say so."""
    least, total = report.get("least_verified", 0), report["triggers"]
    if report["matched"]["marked"] >= least:
        return f"Do not release the model yet. First: wmreg publish {out}"
    chance = f"where chance gives each a probability of {report['chance']:.0%}"
    asked = "more than there are" if least > total else f"{least} of {total}"
    return (
        f"THIS MARK PROVES NOTHING: {chance}, nodes with the usual thresholds ask for {asked}.\n"
        "Publish no such mark. Embed again: with --quick, with another --seed, or into a better trained model."
    )


def _report(report: dict[str, Any], out: Path) -> Report:
    (measure, scores), matched, triggers = measured_by(report), report["matched"], report["triggers"]
    text = [
        f"{MEASURES[measure]:<16}  {scores['clean']:.2%} before, {scores['marked']:.2%} after",
        f"matched triggers  {matched['clean']} before, {matched['marked']} after, of {triggers}",
        *(
            f"matched by {name:<7}{matched[key]} of {triggers}: {worth}"
            for name, key, worth in (
                ("base", "base", "no more than chance"),
                ("others", "neighbour", "a stranger's model from the same base; too few to convict"),
            )
            if key in matched
        ),
        f"weights moved by  {(report if 'weight_change' in report else report['embedding'])['weight_change']:.2%}",
        *([f"chance            p = {report['p_value']}"] if report["p_value"] else []),
        *(
            f"watermark {number}       {told['matched']['marked']} matched, of {told['triggers']}"
            for number, told in enumerate(report["further"], start=1)
        ),
        f"model             {out / 'model.safetensors'}",
        f"SHA-256           {report['model_sha256']}",
        "",
        *unlearnt(scores["marked"], report["test_constant"]),
        *hidden_by_renumbering(report),
        _what_next(report, out),
    ]
    return Report(document={"directory": str(out), **report}, text="\n".join(text))
