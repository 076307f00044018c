"""`wmreg node`: run one verifier node, or see at once how all of them are."""

import asyncio
from pathlib import Path

import click

from client import options
from client.errors import DONE, INCONSISTENT, UNAVAILABLE
from client.output import Report, table


@click.group("node")
def command() -> None:
    """Run a verifier node, or ask how all nodes are."""


@command.command("run")
@click.argument("directory", type=options.DIRECTORY)
def run(directory: Path) -> int:
    """Run the node whose node.toml is in DIRECTORY until it is told to stop (SIGTERM, Ctrl-C).

    Logs JSON lines to stderr; "ready" is the line that says that the API answers.
    """
    from client.errors import InputError
    from node.main import run as run_node

    config = directory / "node.toml"
    if not config.is_file():
        raise InputError(f"{config}: no such file; wmreg cluster init makes it")
    return run_node(config)


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
