"""`wmreg node`: make and run one verifier node, change the members, see at once how all of them are."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.errors import DONE, INCONSISTENT, UNAVAILABLE, InputError
from client.files import write_new
from client.output import Report, table
from client.verbs import members

if TYPE_CHECKING:
    from registry.trust import TrustPolicy


@click.group("node")
def command() -> None:
    """Make and run a verifier node, change the members, ask how all nodes are."""


command.add_command(members.command)


@command.command("init")
@click.argument("directory", type=options.NEW_DIRECTORY)
@click.option("--name", required=True, help="Name of the node, new in the ledger.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens and the others reach it.")
@click.option("--api-port", type=click.IntRange(1, 65535), help="Port of its API.  [default: a free one]")
@click.option("--raft-port", type=click.IntRange(1, 65535), help="Port for its peers.  [default: a free one]")
@options.policy
@options.as_json
def init(
    *, directory: Path, name: str, host: str, api_port: int | None, raft_port: int | None, policy_path: Path
) -> Report:
    """Make a node that is to join a ledger in DIRECTORY: keys, settings, an empty ledger, and member.json.

    The members let it in with member.json: wmreg node member propose --add. Its own signature is needed as well.
    """
    from client.api import Api
    from client.policy_changes import follow_changes
    from node.errors import ConfigError
    from node.init import NewNode, init_node
    from registry.entry import Entry
    from registry.envelope import message_hash
    from registry.joint import encode_member
    from registry.receipt import Receipt

    async def fetch() -> tuple[bytes, "TrustPolicy"]:
        async with options.ledger(options.load_policy(policy_path), 0) as api:
            followed = await follow_changes(api)
            recorded = await Api(api.transport, followed.trust).receipt(message_hash(followed.genesis))
            return Receipt.parse(recorded.receipt).entry, followed.trust

    entry, trust = asyncio.run(fetch())
    decoded = Entry.decode(entry)
    node = NewNode(name=name, host=host, api_port=api_port, raft_port=raft_port)
    try:
        member = init_node(directory, node, genesis=decoded.envelope, recorded_s=decoded.recorded_s, trust=trust)
    except ConfigError as error:
        raise InputError(str(error)) from error
    description = directory / "member.json"
    write_new(description, encode_member(member))
    return Report(
        document={"name": name, "directory": str(directory), "description": str(description)},
        text="\n".join(
            [
                f"{name} in {directory}; its public description is {description}",
                "",
                "Next, one of the members:",
                f"  wmreg node member propose --add {description.name} --out change.json",
                f"Then a quorum of them and you: wmreg node member sign change.json --node {directory}",
                "Then anybody: wmreg node member submit change.json",
                f"Then you: wmreg node run {directory}",
            ]
        ),
    )


@command.command("new-certificate")
@click.argument("directory", type=options.DIRECTORY)
@options.as_json
def new_certificate(directory: Path) -> Report:
    """Make the TLS certificate that is to replace the present one of the node in DIRECTORY.

    It is used when node.toml names it, and not before the policy lists both: wmreg node member describe
    --also-certificate.
    """
    from node.config import load_config
    from node.errors import ConfigError
    from node.identity import make_next_certificate

    try:
        config = load_config(directory / "node.toml")
        path = make_next_certificate(config.keys, name=config.name)
    except ConfigError as error:
        raise InputError(str(error)) from error
    return Report(
        document={"certificate": str(path), "private_key": str(path.with_suffix(".pem"))},
        text=f"{path}\nNext: wmreg node member describe {directory} --also-certificate {path} --out replace.json",
    )


@command.command("run")
@click.argument("directory", type=options.DIRECTORY)
def run(directory: Path) -> int:
    """Run the node whose node.toml is in DIRECTORY until it is told to stop (SIGTERM, Ctrl-C).

    Logs JSON lines to stderr; "ready" is the line that says that the API answers.
    """
    from node.main import run as run_node

    config = directory / "node.toml"
    if not config.is_file():
        raise InputError(f"{config}: no such file; wmreg cluster init makes it")
    return run_node(config)


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
