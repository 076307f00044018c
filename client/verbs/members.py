"""`wmreg node member`: how the members of a ledger let a node join or leave, or change its certificate or address.

One of them proposes, all who agree sign the same file, anybody submits it. Nothing else has to be done: the running
nodes take up the change by themselves when it is recorded.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.errors import InputError
from client.files import read_text, write_atomic, write_new
from client.output import Report

if TYPE_CHECKING:
    from client.policy_changes import Followed
    from node.config import Config
    from registry.trust import TrustPolicy

_PEM_BYTES_MAX = 64 * 1024
PATIENCE_S = 30.0  # a change of leader or a restart of one node is no reason to give up


@click.group(
    "member",
    short_help="Let a node join or leave, or change it.",
    epilog="Example:  wmreg node member propose --add node-4/member.json --out change.json",
)
def command() -> None:
    """Let a node join or leave, or change its certificate or address."""


@command.command(
    "describe",
    short_help="Describe a member, for a change of it.",
    epilog="Example:  wmreg node member describe ledger/node-1 --out replace.json",
)
@click.argument("directory", type=options.DIRECTORY)
@click.option("--also-certificate", type=options.FILE, help="A second certificate that the node will change to.")
@click.option("--next-keys", is_flag=True, help="Its checkpoints are to be signed by the keys of wmreg node new-keys.")
@click.option("--out", type=options.NEW_FILE, required=True, help="Where to write the description.")
@options.policy
@options.as_json
def describe(
    directory: Path, also_certificate: Path | None, out: Path, policy_path: Path, *, next_keys: bool
) -> Report:
    """Describe the member whose node.toml is in DIRECTORY, with the certificate that it has now."""
    from node.init import describe_member
    from registry.joint import encode_member

    config, also = _config(directory), _certificates(also_certificate)
    followed = asyncio.run(_follow(options.load_policy(policy_path)))
    member = next((m for m in followed.in_force.policy.members if m.name == config.name), None)
    if member is None:
        raise InputError(f"{config.name} is no member; a node that joins is described by wmreg node init")
    with _config_errors():
        described = describe_member(config, member, certificates=also, with_next_keys=next_keys)
    write_new(out, encode_member(described))
    return Report(
        document={"name": member.name, "tls_pins": list(described.tls_pins), "description": str(out)},
        text=f"{member.name}: {out}\nNext: wmreg node member propose --replace {out} --out change.json",
    )


@command.command(
    "propose",
    short_help="Draft a change of the members.",
    epilog="Example:  wmreg node member propose --add node-4/member.json --out change.json",
)
@click.option("--add", type=options.FILE, help="Description of a node that joins.")
@click.option("--remove", help="Name of a member that leaves.")
@click.option("--replace", type=options.FILE, help="New description of a member.")
@click.option(
    "--quorum", type=click.IntRange(1, 31), help="Nodes whose agreement binds.  [default: a majority stays one]"
)
@click.option("--out", type=options.NEW_FILE, required=True, help="Where to write the draft.")
@options.policy
@options.as_json
def propose(
    *, add: Path | None, remove: str | None, replace: Path | None, quorum: int | None, out: Path, policy_path: Path
) -> Report:
    """Draft a change of the policy in force; it takes effect when enough members have signed it."""
    from client.membership import Wish, describe_draft, draft_change, load_member

    if (add, remove, replace, quorum) == (None, None, None, None):
        raise click.UsageError("nothing changes: give --add, --remove, --replace or another --quorum")
    wish = Wish(
        add=load_member(add) if add else None,
        remove=remove,
        replace=load_member(replace) if replace else None,
        quorum=quorum,
    )
    followed = asyncio.run(_follow(options.load_policy(policy_path)))
    draft = draft_change(followed.in_force, wish)
    write_new(out, draft.encode())
    lines = describe_draft(draft, followed.in_force)
    return Report(
        document={"draft": str(out), "changes": lines},
        text="\n".join([*lines, "", f"Next, every member who agrees: wmreg node member sign {out} --node DIRECTORY"]),
    )


@command.command(
    "show",
    short_help="Show what a draft would change, and who signed.",
    epilog="Example:  wmreg node member show change.json",
)
@click.argument("files", type=options.FILE, nargs=-1, required=True)
@options.policy
@options.as_json
def show(files: tuple[Path, ...], policy_path: Path) -> Report:
    """Show what the draft in FILES would change, and who has signed which copy of it."""
    from client.membership import describe_draft, load_drafts

    draft = load_drafts(files)
    lines = describe_draft(draft, asyncio.run(_follow(options.load_policy(policy_path))).in_force)
    signers = [signer.hex() for signer in draft.signatures]
    return Report(document={"changes": lines, "signers": signers}, text="\n".join(lines))


@command.command(
    "sign",
    short_help="Sign a draft with a node's key.",
    epilog="Example:  wmreg node member sign change.json --node ledger/node-1",
)
@click.argument("file", type=options.FILE)
@click.option("--node", "directory", type=options.DIRECTORY, required=True, help="Directory of your node.")
@click.option("--yes", is_flag=True, help="Sign without asking.")
@options.policy
@options.as_json
def sign(file: Path, directory: Path, policy_path: Path, *, yes: bool) -> Report:
    """Sign the draft in FILE with your node's key, after showing what it changes."""
    from client.membership import describe_draft, load_draft
    from node.identity import load_identity

    config, draft = _config(directory), load_draft(file)
    followed = asyncio.run(_follow(options.load_policy(policy_path)))
    lines = describe_draft(draft, followed.in_force)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to be asked: look at it with member show, then give --yes")
        click.echo("\n".join(lines), err=True)
        click.confirm(f"Sign as {config.name}?", abort=True, err=True)
    with _config_errors():
        key = load_identity(config.keys).signing
    members = (*draft.change.policy.members, *followed.in_force.policy.members)
    if key.public_key().public_bytes_raw() not in {member.signing_key for member in members}:
        raise InputError(
            f"{config.name} is no member before or after this change; its signature would count for nothing"
        )
    signed = draft.signed_by(key)
    write_atomic(file, signed.encode())
    lines = describe_draft(signed, followed.in_force)
    return Report(document={"draft": str(file), "changes": lines}, text="\n".join(lines))


@command.command(
    "submit",
    short_help="Record a change that enough members signed.",
    epilog="Example:  wmreg node member submit change.json",
)
@click.argument("files", type=options.FILE, nargs=-1, required=True)
@options.policy
@options.patience
@options.as_json
def submit(files: tuple[Path, ...], policy_path: Path, patience_s: float) -> Report:
    """Record the change in FILES, which may be several copies with a signature each.

    The nodes take it up when it is recorded, one configuration after the other, without a restart.
    """
    from client.membership import load_drafts, submit_draft
    from client.policy_changes import follow_changes

    draft, trust = load_drafts(files), options.load_policy(policy_path)

    async def run() -> int:
        async with options.ledger(trust, patience_s) as api:
            followed = await follow_changes(api)
        async with options.ledger(followed.trust, patience_s) as api:
            return (await submit_draft(api, followed, draft)).verified.index

    index = asyncio.run(run())
    return Report(
        document={"index": index, "origin": draft.origin},
        text=f"recorded as entry {index}; it is in force\nOwners and auditors: wmreg policy update",
    )


async def _follow(trust: "TrustPolicy") -> "Followed":
    from client.policy_changes import follow_changes

    async with options.ledger(trust, PATIENCE_S) as api:
        return await follow_changes(api)


def _certificates(path: Path | None) -> tuple[bytes, ...]:
    """The certificates of a PEM file, as DER; raises InputError when it holds none."""
    from node.errors import ConfigError
    from node.identity import certificate_ders

    try:
        return () if path is None else certificate_ders(read_text(path, _PEM_BYTES_MAX))
    except (ConfigError, InputError) as error:
        message = f"{path}: no TLS certificate (PEM); wmreg node new-certificate makes one"
        raise InputError(message, code="malformed") from error


def _config(directory: Path) -> "Config":
    from node.config import load_config

    with _config_errors():
        return load_config(directory / "node.toml")


@contextmanager
def _config_errors() -> Iterator[None]:
    """What is wrong with a node's own files is the caller's to mend."""
    from node.errors import ConfigError

    try:
        yield
    except ConfigError as error:
        raise InputError(str(error)) from error
