"""Makes a new ledger of N nodes, ready to start on one machine: keys, genesis, settings, empty state.

Everything is built in a temporary directory and renamed at the end, so a ledger is there whole or not at all. An empty
directory that exists already is kept, since it may be a mount point or where the caller stands: what was built moves
into it, policy.txt last. The genesis is entry 0 of every node's store; it never goes through Raft.
"""

import json
import socket
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from node.building import built_whole
from node.config import Config, load_config
from node.errors import ConfigError
from node.identity import (
    Identity,
    certificate_ders,
    load_identity,
    load_public,
    make_identity,
    next_keys,
    public_bytes,
)
from node.ports import free_ports
from node.signer import Signer
from node.store import Store
from registry.entry import Entry
from registry.envelope import seal
from registry.errors import MalformedError
from registry.messages import Genesis
from registry.policy import MEMBERS_MAX, Member, Policy, Thresholds
from registry.spelling import is_api_url, is_key_name
from registry.trust import TrustPolicy

STORE_FILE, SIGNER_FILE = "ledger.db", "signer.db"
NOTES_FILE, JOURNAL_FILE, BLOBS_DIRECTORY = "notes.db", "raft.journal", "blobs"
GENESIS_FILE, CONFIG_FILE, POLICY_FILE = "genesis", "node.toml", "policy.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """What rarely differs.

    Attributes:
        hosts: one for each node, which need not be this machine's; empty puts all on the same.
        listen: the address at which every node listens where that is another than its host, as in a container or behind
            an address translation; empty for the host.
        api_ports, raft_ports: one for each node; empty finds free ones, which only this machine can have.
        thresholds: of the verdict.
        time_skew_s: of the policy.
        https: whether the nodes' URLs are https; their certificates are put to keys/api.crt and keys/api.pem later.
        allow_private_addresses: of every node's settings: whether claims may lead it to loopback and private addresses.
        submit_timeout_s, submissions_per_s, key_submissions_per_s, unreachable_retry_s, verifier_threads,
            verifier_timeout_s: of every node's settings.
    """

    hosts: tuple[str, ...] = ()
    listen: str = ""
    api_ports: tuple[int, ...] = ()
    raft_ports: tuple[int, ...] = ()
    thresholds: Thresholds = field(default_factory=Thresholds)
    time_skew_s: int = 300
    https: bool = False
    allow_private_addresses: bool = False
    submit_timeout_s: int = 15
    submissions_per_s: int = 50
    key_submissions_per_s: int = 50
    unreachable_retry_s: int = 60
    verifier_threads: int = 1
    verifier_timeout_s: int = 900


def init_cluster(
    directory: Path,
    *,
    nodes: int,
    origin: str,
    host: str = "127.0.0.1",
    quorum: int | None = None,
    options: ClusterOptions | None = None,
) -> Path:
    """Make DIR/node-1 … DIR/node-N and DIR/policy.txt.

    Args:
        directory: must not exist, or be empty.
        nodes: how many, 1 to 31.
        origin: the ledger's name, such as ``example.org/wmreg``.
        host: where all nodes listen, and the others reach them; options.hosts names one for each instead.
        quorum: nodes whose agreement binds; a majority by default.
        options: ports, thresholds and limits.

    Returns:
        The path of policy.txt, the trust policy for owners and auditors.

    Raises:
        ConfigError: an argument is out of range, or the directory is not empty. Nothing was made.
    """
    options = options or ClusterOptions()
    hosts = options.hosts or (host,) * nodes
    _check_arguments(directory, nodes=nodes, origin=origin, hosts=hosts, options=options)
    quorum = nodes // 2 + 1 if quorum is None else quorum
    if not nodes < 2 * quorum <= 2 * nodes:
        raise ConfigError(f"a quorum of {quorum} of {nodes} nodes is not a majority")
    with built_whole(directory.resolve(), prefix=".ledger.", last=POLICY_FILE) as building:
        _build(building, origin=origin, quorum=quorum, plans=_plan(hosts, options), options=options)
    return directory / POLICY_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    name: str
    host: str
    api_port: int
    raft_port: int


def _check_arguments(
    directory: Path, *, nodes: int, origin: str, hosts: tuple[str, ...], options: ClusterOptions
) -> None:
    if not 1 <= nodes <= MEMBERS_MAX:
        raise ConfigError(f"a ledger has 1 to {MEMBERS_MAX} nodes, not {nodes}")
    if not is_key_name(origin) or len(origin) > 128:
        raise ConfigError(f"origin {origin!r}: a name of at most 128 characters without spaces and pluses")
    for host in hosts:
        _check_place(directory, host)
    for what, given in (("hosts", hosts), ("API ports", options.api_ports), ("Raft ports", options.raft_ports)):
        if given and len(given) != nodes:
            raise ConfigError(f"{len(given)} {what} for {nodes} nodes")
    _check_distinct(hosts, options)


def _check_distinct(hosts: tuple[str, ...], options: ClusterOptions) -> None:
    """Whoever chose the ports himself may have given one twice; the kernel does not."""
    if not (options.api_ports and options.raft_ports):
        return
    used = [*zip(hosts, options.api_ports, strict=True), *zip(hosts, options.raft_ports, strict=True)]
    twice = next((pair for pair in used if used.count(pair) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"port {twice[1]} of {twice[0]} would be used twice: give each node a host or ports of its own"
        )


def _check_place(directory: Path, host: str) -> None:
    if _is_unspecified(host):
        raise ConfigError(f"host {host!r} is no address at which others reach a node; the policy names it")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory} exists and is not an empty directory")
    if not is_api_url(_api_url(host, 443, ClusterOptions())):
        raise ConfigError(f"host {host!r} cannot stand in a URL: give a name or an address without a zone")


def _is_unspecified(host: str) -> bool:
    """Whether a host means every address of a machine: 0.0.0.0, also as "0", or ::, or nothing at all."""
    try:
        return not host or socket.inet_aton(host) == bytes(4)
    except OSError:
        return host.strip("0:") == "" and ":" in host


def _plan(hosts: tuple[str, ...], options: ClusterOptions) -> list[_Plan]:
    api_ports, raft_ports = options.api_ports, options.raft_ports
    if not (api_ports and raft_ports):
        free = _free_ports(hosts)
        api_ports, raft_ports = api_ports or tuple(free[::2]), raft_ports or tuple(free[1::2])
    width = len(str(len(hosts)))  # names sort in the order of the numbers
    return [
        _Plan(name=f"node-{number:0{width}d}", host=host, api_port=api_port, raft_port=raft_port)
        for number, (host, api_port, raft_port) in enumerate(zip(hosts, api_ports, raft_ports, strict=True), start=1)
    ]


def _free_ports(hosts: tuple[str, ...]) -> list[int]:
    """Two for each node. Only this machine's can be looked for: for nodes elsewhere both ports have to be given."""
    if len(set(hosts)) > 1:
        raise ConfigError("nodes on several hosts need their ports given: of the API and of Raft")
    try:
        return free_ports(hosts[0], 2 * len(hosts))
    except OSError as error:
        why = f"host {hosts[0]!r} is not an address of this machine: {error.strerror}"
        raise ConfigError(f"{why}; for a node elsewhere give the ports of the API and of Raft") from error


def _build(building: Path, *, origin: str, quorum: int, plans: list[_Plan], options: ClusterOptions) -> None:
    configs = [_make_directory(building / plan.name, plan, options) for plan in plans]
    identities = [make_identity(config.keys, name=config.name) for config in configs]
    members = tuple(_member(plan, identity, options) for plan, identity in zip(plans, identities, strict=True))
    policy = Policy(members=members, quorum=quorum, time_skew_s=options.time_skew_s, thresholds=options.thresholds)
    genesis = _checked(Genesis(time_s=int(time.time()), origin=origin, policy=policy))
    envelope = seal(genesis, origin=origin, private_keys=[identity.signing for identity in identities])
    for config in configs:
        init_state(config, genesis=envelope, recorded_s=genesis.time_s)
    (building / POLICY_FILE).write_text(str(TrustPolicy.of(policy, origin)), encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNode:
    """A node that is to join a ledger.

    Attributes:
        name: new in the ledger.
        host: where it listens, and the others reach it.
        listen: the address at which it listens where that is another; empty for the host.
        api_port, raft_port: None finds a free one, which only this machine can have.
        https: whether its URL begins so; node.toml then needs its certificate.
    """

    name: str
    host: str
    listen: str = ""
    api_port: int | None = None
    raft_port: int | None = None
    https: bool = False


def init_node(directory: Path, node: NewNode, *, genesis: bytes, recorded_s: int, trust: TrustPolicy) -> Member:
    """Make the directory of a node that is to join: its keys, its settings, and a ledger that holds the genesis.

    Args:
        directory: must not exist, or be empty.
        node: its name and addresses.
        genesis: the ledger's first message, which the caller has checked.
        recorded_s: of the genesis.
        trust: the ledger's policy of the day: where to ask for the changes since the genesis.

    Returns:
        The node's description, for the members to agree on.

    Raises:
        ConfigError: an argument is out of range, or the directory is not empty. Nothing was made.
    """
    if not is_key_name(node.name) or "/" in node.name or len(node.name) > 64:
        raise ConfigError(f"name {node.name!r}: at most 64 characters without spaces, pluses and slashes")
    _check_place(directory, node.host)
    options = ClusterOptions(
        listen=node.listen,
        api_ports=(node.api_port,) if node.api_port else (),
        raft_ports=(node.raft_port,) if node.raft_port else (),
        https=node.https,
    )
    plan = replace(_plan((node.host,), options)[0], name=node.name)
    with built_whole(directory.resolve(), prefix=".node.", last=POLICY_FILE) as building:
        config = _make_directory(building, plan, options)
        member = _member(plan, make_identity(config.keys, name=node.name), options)
        init_state(config, genesis=genesis, recorded_s=recorded_s)
        (building / POLICY_FILE).write_text(str(trust), encoding="utf-8")
    return member


def describe_member(
    config: Config, member: Member, *, certificates: tuple[bytes, ...] = (), with_next_keys: bool = False
) -> Member:
    """A member as its own files describe it now: its certificate, and others that it may show as well.

    Args:
        config: of the node.
        member: as the policy has it.
        certificates: DER; two with its own are the most that a policy takes.
        with_next_keys: whether it is to sign checkpoints with the keys that `make_next_keys` has made.

    Raises:
        ConfigError: a key or the certificate cannot be read.
    """
    own = certificate_ders(load_identity(config.keys).certificate_pem)
    described = replace(member, tls_certificates=tuple(dict.fromkeys((*own, *certificates))))
    if not with_next_keys:
        return described
    note, cosigner = (load_public(path) for path in next_keys(config.keys))
    return replace(described, note_key=note, cosigner_key=cosigner)


def _checked(genesis: Genesis) -> Genesis:
    """The genesis as every reader will take it; what no reader takes must not become a ledger."""
    try:
        return Genesis.from_body(genesis.to_body())
    except MalformedError as error:
        raise ConfigError(f"no ledger can begin like this: {error}") from error


def init_state(config: Config, *, genesis: bytes, recorded_s: int) -> None:
    """Make the state of a node that is new to a ledger.

    Raises:
        FileExistsError: there is state already.
        ValueError: not a genesis.
    """
    config.genesis.write_bytes(genesis)
    config.state_directory.mkdir(mode=0o700, exist_ok=True)
    Store.create(config.state_directory / STORE_FILE, genesis_entry=Entry(genesis, recorded_s).encode())
    Signer.create(config.state_directory / SIGNER_FILE)


def _make_directory(directory: Path, plan: _Plan, options: ClusterOptions) -> Config:
    (directory / "keys").mkdir(parents=True, mode=0o700)
    (directory / CONFIG_FILE).write_text(_settings(plan, options), encoding="utf-8")
    return load_config(directory / CONFIG_FILE)


def _member(plan: _Plan, identity: Identity, options: ClusterOptions) -> Member:
    return Member(
        name=plan.name,
        signing_key=public_bytes(identity.signing),
        note_key=public_bytes(identity.note),
        cosigner_key=public_bytes(identity.cosigner),
        tls_certificates=certificate_ders(identity.certificate_pem),
        raft_host=plan.host,
        raft_port=plan.raft_port,
        api_url=_api_url(plan.host, plan.api_port, options),
    )


def _api_url(host: str, port: int, options: ClusterOptions) -> str:
    return f"{'https' if options.https else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _settings(plan: _Plan, options: ClusterOptions) -> str:
    sections: dict[str, dict[str, str | int | bool]] = {
        "": {"name": plan.name, "genesis": GENESIS_FILE, "state_directory": "state"},
        "keys": {
            "signing": "keys/signing.pem",
            "note": "keys/note.pem",
            "cosigner": "keys/cosigner.pem",
            "tls_private_key": "keys/tls.pem",
            "tls_certificate": "keys/tls.crt",
        },
        "api": {
            "host": options.listen or plan.host,
            "port": plan.api_port,
            "submit_timeout_s": options.submit_timeout_s,
            "submissions_per_s": options.submissions_per_s,
            "key_submissions_per_s": options.key_submissions_per_s,
            "reads_per_s": 500,
            "claims_per_hour": 120,
            "key_claims_per_hour": 120,
            "connections_max": 512,
            "address_connections_max": 128,
            "tls_certificate": "keys/api.crt" if options.https else "",
            "tls_private_key": "keys/api.pem" if options.https else "",
            "tls_authorities": "",
            "explorer": True,
        },
        "raft": {"bind_host": options.listen, "profile": "lan"},
        "blobs": {
            "blob_bytes_max": 4 * 2**30,
            "total_bytes_max": 16 * 2**30,
            "cache_bytes_max": 16 * 2**30,
            "unclaimed_age_max_s": 86400,
        },
        "fetch": {
            "allow_private_addresses": options.allow_private_addresses,
            "file_directory": "",
            "timeout_s": 600,
            "unreachable_retry_s": options.unreachable_retry_s,
        },
        "verifier": {
            "device": "auto",
            "threads": options.verifier_threads,
            "timeout_s": options.verifier_timeout_s,
            "memory_bytes_max": 8 * 2**30,
            "controls_directory": "",
        },
    }
    return "\n".join(_spell_section(name, values) for name, values in sections.items())


def _spell_section(name: str, values: dict[str, str | int | bool]) -> str:
    """A TOML section; JSON spells strings, integers and booleans as TOML does."""
    lines = [f"[{name}]"] if name else []
    return "".join(f"{line}\n" for line in [*lines, *(f"{key} = {json.dumps(value)}" for key, value in values.items())])
