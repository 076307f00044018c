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
@options.ca_file
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
        text="\n".join(
            [table(health.HEADERS, [node.row() for node in health.nodes]), "", health.summary(), *health.troubles()]
        ),
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


@command.command("backup")
@click.argument("directory", type=options.DIRECTORY)
@click.argument("target", type=options.NEW_DIRECTORY)
@click.option("--with-keys", is_flag=True, help="Copy the private keys as well; keep such a backup like the keys.")
@options.as_json
def backup(directory: Path, target: Path, *, with_keys: bool) -> Report:
    """Copy the history of the node in DIRECTORY to the new directory TARGET; the node may run.

    The ledger in one consistent state, the journal's committed entries that lead to it, genesis, settings; checked as
    fsck would. Not copied is what the node has promised, its votes and its signed checkpoints: a copy of these could
    only make it break a promise. So a backup is what a new member starts from, and no second life of the old one.
    """
    from node.upkeep.backup import back_up

    with _config_of(directory), status_line("copying") as show:
        manifest = back_up(_settings_path(directory), target, with_keys=with_keys, show=show)
    return Report(
        document={"backup": str(target), "name": manifest.name, "size": manifest.size, "root": manifest.root},
        text=f"{target}: {manifest.size} entries of {manifest.origin}, checked\nroot  {manifest.root}",
    )


@command.command("restore")
@click.argument("backup_directory", metavar="BACKUP", type=options.DIRECTORY)
@click.argument("directory", type=options.NEW_DIRECTORY)
@click.option("--name", required=True, help="Name of the new member; no member of the ledger ever had it.")
@options.as_json
def restore(backup_directory: Path, directory: Path, name: str) -> Report:
    """Make the new directory DIRECTORY of a new member, with the history of BACKUP and fresh keys.

    A node that lost its journal or its signed checkpoints does not come back as itself: it could forget what it
    acknowledged, vote twice, or sign a second history. It comes back as a new member, which a policy entry admits in
    the place of the lost one. Before it signs, it proves that its tree is the one that the other nodes sign.
    """
    from node.upkeep.restore import restore as make

    with _mending(), status_line("checking the backup") as show:
        config = make(backup_directory, directory, name=name, show=show)
    return Report(
        document={"directory": str(directory), "name": config.name, "keys": str(config.keys.signing.parent)},
        text="\n".join(
            [
                f"{directory}: the new member {config.name}, with the history of the backup and new keys",
                "",
                "It runs when a policy entry of the ledger has admitted it, instead of the member that was lost.",
            ]
        ),
    )


@command.command("rebuild")
@click.argument("directory", type=options.DIRECTORY)
@options.as_json
def rebuild(directory: Path) -> Report:
    """Make a damaged ledger.db anew, when fsck says that the journal holds all of it; the node must not run.

    The damaged file is set aside. The node fills the new one from its journal when it starts, and signs on only if that
    gives the tree that it has signed.
    """
    from node.upkeep.restore import rebuild as make

    with _config_of(directory) as config, status_line("reading the journal") as show:
        damaged = make(config, show=show)
    return Report(
        document={"damaged": str(damaged)},
        text=f"{config.name}: the ledger will be read from the journal at the next start\nset aside  {damaged}",
    )


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
    """The settings of a node."""
    from node.config import load_config

    with _mending():
        yield load_config(_settings_path(directory))


@contextmanager
def _mending() -> Iterator[None]:
    """What is wrong with a node's settings, or with what is asked of it, is an error of usage."""
    from client.errors import InputError
    from node.errors import ConfigError, InconsistentStateError
    from registry.errors import ConsistencyError

    try:
        yield
    except ConfigError as error:
        raise InputError(str(error)) from error
    except InconsistentStateError as error:
        raise ConsistencyError(str(error), code="inconsistent") from error
