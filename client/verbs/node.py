"""`wmreg node`: make and run one verifier node, look after its files, change the members, see how all nodes are."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.errors import DONE, INCONSISTENT, UNAVAILABLE, UNTRUSTED, InputError
from client.files import write_new
from client.output import Report, table
from client.progress import status_line
from client.verbs import members

if TYPE_CHECKING:
    from node.config import Config
    from node.upkeep.findings import Findings
    from registry.trust import TrustPolicy

_ENDINGS = {  # by the exit codes of node.main
    2: "a setting, key or library is wrong",
    4: "nobody knows yet that it is a member",
    5: "its files are inconsistent or missing",
    6: "it is no member any more",
    74: "there is no room on the disk to start",
}


@click.group("node", epilog="Example:  wmreg node run ledger/node-1")
def command() -> None:
    """Make and run a verifier node, look after its files, change the members, ask how all nodes are."""


command.add_command(members.command)


@command.command(
    "init",
    short_help="Make a node that is to join a ledger.",
    epilog="Example:  wmreg node init node-4 --name node-4 --host node-4.example.org --https",
)
@click.argument("directory", type=options.NEW_DIRECTORY)
@click.option("--name", required=True, help="Name of the node, new in the ledger.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens and the others reach it.")
@click.option("--listen", default="", help="Where it listens, if not at its host: 0.0.0.0 in a container.")
@click.option("--api-port", type=click.IntRange(1, 65535), help="Port of its API.  [default: a free one]")
@click.option("--raft-port", type=click.IntRange(1, 65535), help="Port for its peers.  [default: a free one]")
@click.option("--https", is_flag=True, help="The node's URL begins with https; see deploy/README.md.")
@options.policy
@options.as_json
def init(  # noqa: PLR0913 -- one for each option
    *,
    directory: Path,
    name: str,
    host: str,
    listen: str,
    api_port: int | None,
    raft_port: int | None,
    policy_path: Path,
    https: bool,
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
        async with options.ledger(options.load_policy(policy_path), members.PATIENCE_S) as api:
            followed = await follow_changes(api)
            recorded = await Api(api.transport, followed.trust).receipt(message_hash(followed.genesis))
            return Receipt.parse(recorded.receipt).entry, followed.trust

    entry, trust = asyncio.run(fetch())
    decoded = Entry.decode(entry)
    node = NewNode(name=name, host=host, listen=listen, api_port=api_port, raft_port=raft_port, https=https)
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


@command.command(
    "new-certificate",
    short_help="Make the next TLS certificate of a node.",
    epilog="Example:  wmreg node new-certificate ledger/node-1",
)
@click.argument("directory", type=options.DIRECTORY)
@options.as_json
def new_certificate(directory: Path) -> Report:
    """Make the TLS certificate that is to replace the present one of the node in DIRECTORY.

    It is used when node.toml names it, and not before the policy lists both: wmreg node member describe
    --also-certificate.
    """
    from node.identity import make_next_certificate

    with _config_of(directory) as config, _made_once():
        path = make_next_certificate(config.keys, name=config.name)
    return Report(
        document={"certificate": str(path), "private_key": str(path.with_suffix(".pem"))},
        text=f"{path}\nNext: wmreg node member describe {directory} --also-certificate {path} --out replace.json",
    )


@command.command(
    "new-keys",
    short_help="Make the next keys that sign checkpoints for a node.",
    epilog="Example:  wmreg node new-keys ledger/node-1",
)
@click.argument("directory", type=options.DIRECTORY)
@options.as_json
def new_keys(directory: Path) -> Report:
    """Make the keys that are to sign checkpoints for the node in DIRECTORY, instead of its present ones.

    For keys that may have leaked. They count when the policy lists them (wmreg node member describe --next-keys); then
    the node stops, they are moved over the present ones, and it starts again. The key that signs votes and changes of
    the policy stays: with its name it is the member.
    """
    from node.identity import make_next_keys

    with _config_of(directory) as config, _made_once():
        note, cosigner = make_next_keys(config.keys)
    return Report(
        document={"note": str(note), "cosigner": str(cosigner)},
        text=f"{note}\n{cosigner}\nNext: wmreg node member describe {directory} --next-keys --out replace.json",
    )


@command.command(
    "run",
    short_help="Run a node until it is told to stop.",
    epilog="Example:  wmreg node run ledger/node-1",
)
@click.argument("directory", type=options.DIRECTORY)
@click.option("--json", "as_json", is_flag=True, help="When it has ended, print one JSON document.")
def run(directory: Path, *, as_json: bool) -> Report | int:
    """Run the node whose node.toml is in DIRECTORY until it is told to stop (SIGTERM, Ctrl-C).

    Logs JSON lines to stderr; "ready" is the line that says that the API answers.

    Exit codes: 0 told to stop, 2 a setting, key or library is wrong, 4 nobody knows yet that it is a member, 5 its
    files are inconsistent, 6 it is no member any more, 74 there is no room on the disk; 70 and 74 while it runs, when
    it cannot write its journal any more.
    """
    from node.main import run as run_node

    exit_code = run_node(_settings_path(directory))
    if not as_json:  # its output is its log: whether stdout still leads anywhere changes nothing about how it ended
        return exit_code
    document: dict[str, object] = {"directory": str(directory), "ended": "told to stop"}
    if exit_code != DONE:
        message = f"{directory}: {_ENDINGS[exit_code]}; the last line of its log says more"
        document = {"error": {"code": "node_ended", "message": message}}
    return Report(document=document, text="", exit_code=exit_code)


@command.command("status", short_help="Show how all nodes of the ledger are.", epilog="Example:  wmreg node status")
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
    if health.is_untrusted:
        exit_code = UNTRUSTED
    return Report(
        document=health.document(),
        text="\n".join(
            [table(health.HEADERS, [node.row() for node in health.nodes]), "", health.summary(), *health.troubles()]
        ),
        exit_code=INCONSISTENT if health.disagreeing else exit_code,
    )


@command.command(
    "fsck",
    short_help="Check every file of a node that does not run.",
    epilog="Example:  wmreg node fsck ledger/node-1",
)
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


@command.command(
    "backup",
    short_help="Copy a node's history to a new directory.",
    epilog="Example:  wmreg node backup ledger/node-1 backup-of-today",
)
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


@command.command(
    "restore",
    short_help="Give a new node the history of a backup.",
    epilog="Example:  wmreg node restore backup-of-today node-4",
)
@click.argument("backup_directory", metavar="BACKUP", type=options.DIRECTORY)
@click.argument("directory", type=options.DIRECTORY)
@options.as_json
def restore(backup_directory: Path, directory: Path) -> Report:
    """Give the new node in DIRECTORY, which wmreg node init made, the history of BACKUP to begin with.

    A node that lost its journal or its signed checkpoints does not come back as itself: it could forget what it
    acknowledged, vote twice, or sign a second history. It comes back as a new member, with another name and new keys,
    which the members let in as any other. With a backup it need not fetch the history again.
    """
    from node.upkeep.restore import restore as fill

    with _config_of(directory) as config, status_line("checking the backup") as show:
        manifest = fill(backup_directory, config, show=show)
    return Report(
        document={"name": config.name, "size": manifest.size, "root": manifest.root, "backup_of": manifest.name},
        text="\n".join(
            [
                f"{config.name}: begins with the {manifest.size} entries of {manifest.name}'s backup, checked",
                "",
                f"If {manifest.name} is lost: wmreg node member propose --remove {manifest.name} --out change.json",
                f"Then: wmreg node member propose --add {directory / 'member.json'} --out change.json",
            ]
        ),
    )


@command.command(
    "rebuild",
    short_help="Make a damaged ledger.db anew, from the journal.",
    epilog="Example:  wmreg node rebuild ledger/node-1",
)
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
    from node.upkeep.manifest import MANIFEST_FILE

    path = directory / "node.toml"
    if not path.is_file():
        raise InputError(f"{path}: no such file; wmreg cluster init or wmreg node init makes the directory of a node")
    if (directory / MANIFEST_FILE).is_file() and not (directory / "state").exists():
        message = (
            f"{directory}: a backup, not a node's directory; wmreg node restore checks it and gives it to a new node"
        )
        raise InputError(message)
    return path


@contextmanager
def _config_of(directory: Path) -> Iterator["Config"]:
    """The settings of a node."""
    from node.config import load_config

    with _mending():
        yield load_config(_settings_path(directory))


@contextmanager
def _made_once() -> Iterator[None]:
    """What was made earlier may be listed in the policy already: it is not made again."""
    try:
        yield
    except FileExistsError as error:
        made = Path(error.filename)
        message = f"{made}: made earlier; use it, or remove {made.parent}/*-next.* if no policy lists it"
        raise InputError(message, code="exists") from error


@contextmanager
def _mending() -> Iterator[None]:
    """What is wrong with a node's settings, or with what is asked of it, is an error of usage."""
    from node.errors import ConfigError, InconsistentStateError
    from registry.errors import ConsistencyError

    try:
        yield
    except ConfigError as error:
        raise InputError(str(error)) from error
    except InconsistentStateError as error:
        raise ConsistencyError(str(error), code="inconsistent") from error
