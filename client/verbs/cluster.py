"""`wmreg cluster`: the genesis of a new ledger, ready to start on one machine."""

from pathlib import Path

import click

from client import options
from client.output import Report

_PORT = click.IntRange(1, 65535)
_HTTPS = (
    "Put the certificate of each node's API (PEM, with its chain) into its keys/api.crt, and the private key (mode",
    "0600) into keys/api.pem. If no public authority issued them, [api] tls_authorities in each node.toml names who",
    "did, and so does --ca-file of wmreg.",
    "",
)


@click.group("cluster", epilog="Example:  wmreg cluster init ledger --origin example.org/models")
def command() -> None:
    """Make a new ledger of several nodes."""


@command.command(
    "init",
    short_help="Make the directories of a new ledger's nodes.",
    epilog="Example:  wmreg cluster init ledger --origin example.org/models",
)
@click.argument("directory", type=options.NEW_DIRECTORY)
@click.option("--nodes", type=click.IntRange(1, 31), default=3, show_default=True, help="How many nodes.")
@click.option("--origin", required=True, help="The ledger's name for ever, such as example.org/models.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    help="Where the nodes listen and the others reach them: once for all, or once for each.  [default: 127.0.0.1]",
)
@click.option("--listen", default="", help="Where they listen, if not at their hosts: 0.0.0.0 in a container.")
@click.option("--api-port", type=_PORT, help="Port of every node's API, for nodes on hosts of their own.")
@click.option("--raft-port", type=_PORT, help="Port of every node for its peers, likewise.  [default: free ones]")
@click.option("--quorum", type=click.IntRange(1, 31), help="Nodes whose agreement binds.  [default: a majority]")
@click.option("--https", is_flag=True, help="The nodes' URLs are https; each gets keys/api.crt and keys/api.pem.")
@click.option(
    "--private-addresses",
    is_flag=True,
    help="Claims may lead the nodes to loopback and private addresses, and to http on loopback; for trying things.",
)
@options.as_json
def init(  # noqa: PLR0913 -- one for each option
    *,
    directory: Path,
    nodes: int,
    origin: str,
    hosts: tuple[str, ...],
    listen: str,
    api_port: int | None,
    raft_port: int | None,
    quorum: int | None,
    https: bool,
    private_addresses: bool,
) -> Report:
    """Make the keys, the genesis and the settings of a ledger's nodes in DIRECTORY.

    Each node has a directory of its own, to be moved to its machine; policy.txt is what owners and auditors need.
    """
    from client.errors import InputError
    from node.errors import ConfigError
    from node.init import ClusterOptions, init_cluster

    made = ClusterOptions(
        hosts=hosts * nodes if len(hosts) == 1 else hosts,
        listen=listen,
        api_ports=(api_port,) * nodes if api_port else (),
        raft_ports=(raft_port,) * nodes if raft_port else (),
        https=https,
        allow_private_addresses=private_addresses,
    )
    try:
        policy = init_cluster(directory, nodes=nodes, origin=origin, quorum=quorum, options=made)
    except ConfigError as error:
        raise InputError(str(error)) from error
    directories = sorted(path.parent for path in directory.glob("*/node.toml"))
    return Report(
        document={"origin": origin, "policy": str(policy), "nodes": [str(path) for path in directories]},
        text="\n".join(
            [
                f"{origin}: a ledger of {nodes} node{'s' * (nodes > 1)}",
                f"policy  {policy}",
                "",
                *(_HTTPS if https else ()),
                "Start every node, each in a terminal of its own:",
                *(f"  wmreg node run {path}" for path in directories),
                "",
                f"Then: wmreg node status --policy {policy}",
            ]
        ),
    )
