"""`wmreg demo`: play the whole life of a marked model on this machine."""

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.errors import ClientError
from client.output import Report

if TYPE_CHECKING:
    from client.demo.play import Play
    from client.demo.shell import Shell


@click.command(epilog="Example:  wmreg demo --report demo-report")
@click.option("--report", type=options.NEW_DIRECTORY, default=Path("demo-report"), show_default=True, help="Where to.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=1, show_default=True, help="Of the owner's training.")
@click.option("--kill-node", type=click.IntRange(1, 3), help="Kill this node when the first claim is made.")
@options.as_json
def command(report: Path, seed: int, kill_node: int | None) -> Report:
    """Play the whole life of a model on this machine.

    Three verifier nodes, an owner, a thief, a bystander and a liar, in a temporary directory, on real handwritten
    digits; takes minutes. The report directory gets the transcript, all numbers as JSON, and a plot.
    """
    from rich.console import Console

    from client.demo.play import Play
    from client.demo.shell import Shell

    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wmreg-demo-") as directory:
        shell = Shell(Path(directory), Console(stderr=True))
        play = Play(shell, seed=seed, kill=kill_node)
        _perform(play, shell, report)
    elapsed_s = round(time.monotonic() - begun)
    text = f"The whole life of a model, in {elapsed_s} s. The report is in {report}/."
    return Report(document={"report": str(report), "seconds": elapsed_s, **play.facts}, text=text)


def _perform(play: "Play", shell: "Shell", report: Path) -> None:
    """Play, and write the report also when an act fails: it says how far the demo came."""
    from client.demo.report import write_report
    from client.demo.shell import DemoError

    try:
        play.perform()
        shell.heading(f"7/7  The report is in {report}/: transcript, numbers, plot")
    except DemoError as error:
        shell.remark(str(error))
        raise ClientError(f"{error}; the transcript is in {report}/") from error
    finally:
        write_report(report, shell, play.facts)
