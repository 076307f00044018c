"""`wmreg demo`: play the whole life of a marked model on this machine."""

import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.errors import ClientError
from client.output import Report

if TYPE_CHECKING:
    from client.demo.play import Play
    from client.demo.shell import Shell

SEED_MAX = options.SEED_MAX - 2000  # client.demo.play adds up to that for the others' trainings


@click.command(epilog="Example:  wmreg demo --report demo-report")
@click.option("--report", type=options.NEW_DIRECTORY, default=Path("demo-report"), show_default=True, help="Where to.")
@click.option("--seed", type=click.IntRange(0, SEED_MAX), default=1, show_default=True, help="Of the owner's training.")
@click.option("--kill-node", type=click.IntRange(1, 3), help="Kill this node when the first claim is made.")
@options.as_json
def command(report: Path, seed: int, kill_node: int | None) -> Report:
    """Play the whole life of a model on this machine.

    Three verifier nodes, an owner, a thief, a bystander, a liar and two prediction endpoints, in a temporary directory,
    on real handwritten digits; takes minutes. The report directory gets the transcript, all numbers as JSON, and a
    plot; an earlier report in it is replaced.
    """
    from rich.console import Console

    from client.demo.play import Play
    from client.demo.report import check_report
    from client.demo.shell import Shell
    from client.extras import require

    require("node")
    check_report(report)
    begun = time.monotonic()
    with _stoppable(), tempfile.TemporaryDirectory(prefix="wmreg-demo-") as directory:
        shell = Shell(Path(directory), Console(stderr=True))
        play = Play(shell, seed=seed, kill=kill_node)
        _perform(play, shell, report)
    elapsed_s = round(time.monotonic() - begun)
    text = f"The whole life of a model, in {elapsed_s} s. The report is in {report}/."
    return Report(document={"report": str(report), "seconds": elapsed_s, **play.facts}, text=text)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does: the nodes are stopped, the temporary directory is removed."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _perform(play: "Play", shell: "Shell", report: Path) -> None:
    """Play, and write the report also when an act fails: it says how far the demo came."""
    from client.demo.report import write_report
    from client.demo.shell import DemoError

    try:
        play.perform()
    except DemoError as error:
        shell.remark(str(error))
        _report_failure(play, shell, report, error)
        raise ClientError("; ".join([str(error), *getattr(error, "__notes__", [])])) from error
    except BaseException as error:
        _report_failure(play, shell, report, error)
        raise
    shell.heading("8/8  The report: transcript, numbers, plot")
    write_report(report, shell, play.facts)


def _report_failure(play: "Play", shell: "Shell", report: Path, failure: BaseException) -> None:
    """Write the report of a demo that failed; whatever goes wrong with it must not hide why the demo failed."""
    from client.demo.report import write_report

    try:
        write_report(report, shell, play.facts)
    except Exception as error:  # noqa: BLE001 -- told beside the failure, not instead of it
        failure.add_note(f"its report could not be written: {error!r}")
    else:
        failure.add_note(f"the transcript is in {report}/")
