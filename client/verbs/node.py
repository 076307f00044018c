"""`wmreg node`: run one verifier node, look after its files, or see at once how all of them are."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.errors import DONE, INCONSISTENT, UNAVAILABLE
from client.output import Report, table
from client.progress import status_line

if TYPE_CHECKING:
    from node.config import Config
    from node.upkeep.findings import Findings


@click.group("node")
def command() -> None:
    """Run a verifier node, look after its files, or ask how all nodes are."""


@command.command("run")
@click.argument("directory", type=options.DIRECTORY)
def run(directory: Path) -> int:
    """Run the node whose node.toml is in DIRECTORY until it is told to stop (SIGTERM, Ctrl-C).

    Logs JSON lines to stderr; "ready" is the line that says that the API answers.
    """
    from node.main import run as run_node

    return run_node(_settings_path(directory))


@command.command("status")
@options.policy
@options.as_json
def status(policy_path: Path) -> Report:
    """Show every node of the ledger, whether their trees agree, and how many more may fail."""
    from client.health import Health, survey

    trust = options.load_policy(policy_path)

    async def ask() -> Health:
        async with options.ledger(trust, 0) as api:
            return await survey(api)

    health = asyncio.run(ask())
    exit_code = DONE if health.spare >= 0 else UNAVAILABLE
    return Report(
        document=health.document(),
        text=f"{table(health.HEADERS, [node.row() for node in health.nodes])}\n\n{health.summary()}",
        exit_code=INCONSISTENT if health.disagreeing else exit_code,
    )


@command.command("fsck")
@click.argument("directory", type=options.DIRECTORY)
@options.as_json
def fsck(directory: Path) -> Report:
    """Check every file of the node in DIRECTORY while it does not run; change nothing.

    Databases, every entry and hash of the ledger, the rules' outcome of each, the journal's records and that they lead
    to this ledger, every checkpoint that the node signed, keys and certificate, uploads. Each problem comes with the
    way out. Exit code 0: sound; 5: inconsistent.
    """
    from node.upkeep.fsck import examine

    with _config_of(directory) as config, status_line("reading the journal") as show:
        findings = examine(config, show=show)
    return _findings_report(config.name, findings)


def _findings_report(name: str, findings: "Findings") -> Report:
    figures = ", ".join(f"{value} {what.replace('_', ' ')}" for what, value in findings.figures.items())
    lines = [f"{name}: {'INCONSISTENT' if findings.problems else 'sound'}", f"checked  {figures}"]
    lines += [f"note     {remark}" for remark in findings.remarks]
    for problem in findings.problems:
        lines += ["", f"PROBLEM  {problem.part}: {problem.what}", f"         way out: {problem.remedy}"]
    return Report(
        document={
            "name": name,
            "sound": not findings.problems,
            "checked": dict(findings.figures),
            "remarks": findings.remarks,
            "problems": [{"part": p.part, "what": p.what, "remedy": p.remedy} for p in findings.problems],
        },
        text="\n".join(lines),
        exit_code=INCONSISTENT if findings.problems else DONE,
    )


def _settings_path(directory: Path) -> Path:
    from client.errors import InputError

    path = directory / "node.toml"
    if not path.is_file():
        raise InputError(f"{path}: no such file; wmreg cluster init makes it")
    return path


@contextmanager
def _config_of(directory: Path) -> Iterator["Config"]:
    """The settings of a node; what is wrong with them, or with what is asked of it, is an error of usage."""
    from client.errors import InputError
    from node.config import load_config
    from node.errors import ConfigError

    try:
        yield load_config(_settings_path(directory))
    except ConfigError as error:
        raise InputError(str(error)) from error
