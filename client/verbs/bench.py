"""`wmreg bench`: make a measurement of bench/ again, which only a checkout has."""

import json
import subprocess
import sys
from pathlib import Path

import click

from client.errors import ClientError, InputError
from client.output import Report

# The programs of bench/ that write into bench/results; tests/client/test_bench.py compares.
NAMES = (
    "attacks",
    "centring",
    "consensus",
    "demo",
    "install",
    "lambdas",
    "ledger",
    "mtlsign",
    "node",
    "paper",
    "public_base",
    "schemes",
    "segmentation",
    "siblings",
    "specificity",
    "verification",
)
CHECKOUT = Path(__file__).resolve().parents[2]


@click.command("bench", context_settings={"ignore_unknown_options": True}, epilog="Example:  wmreg bench ledger")
@click.argument("name", metavar="NAME", type=click.Choice(NAMES))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; the table goes to stderr.")
def command(name: str, arguments: tuple[str, ...], *, as_json: bool) -> Report | int:
    """Make the measurement NAME again, in a checkout: a table, and bench/results/NAME.json.

    NAME is attacks, centring, consensus, demo, install, lambdas, ledger, mtlsign, node, paper, public_base, schemes,
    segmentation, siblings, specificity or verification. Most take minutes and want a machine that does nothing else,
    some take hours. ARGUMENTS are the measurement's own, such as --no-write; `wmreg bench NAME -- --help` tells which.
    """
    from client.extras import require

    results = CHECKOUT / "bench" / "results"
    if not results.is_dir():
        raise InputError("the measurements are no part of the package; in a checkout: wmreg bench, or make bench")
    require("node")
    before = _written(results)
    with subprocess.Popen(
        [sys.executable, "-m", f"bench.{name}", *arguments], cwd=CHECKOUT, stdout=sys.stderr if as_json else None
    ) as process:
        try:
            exit_code = process.wait()
        except BaseException:  # told to end: so are the nodes and trainings that it started
            process.terminate()
            raise
    if exit_code:
        raise ClientError(f"the measurement {name} ended with exit code {exit_code}")
    if not as_json:
        return 0
    found = [
        json.loads(path.read_bytes()) for path, time_ns in _written(results).items() if before.get(path) != time_ns
    ]
    return Report(document={"name": name, "results": found}, text="")


def _written(results: Path) -> dict[Path, int]:
    """The files of results, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in sorted(results.glob("*.json"))}
