"""Settings of one node: one TOML file, read strictly (STYLE: errors, settings, logging).

Every key must be there and none besides, so a misspelt limit is an error and not a silent default. Paths are
relative to the file. Secrets are paths, never values. What all nodes must agree on is in the genesis, not here.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from node.errors import ConfigError
from node.raft import PROFILES
from registry import schema
from registry.encoding import Value
from registry.errors import MalformedError, shown

_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPaths:
    """Where the node's private keys are: Ed25519 as PKCS #8 PEM, and its TLS identity."""

    signing: Path
    note: Path
    cosigner: Path
    tls_private_key: Path
    tls_certificate: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """The HTTP API.

    Attributes:
        host, port: where it listens.
        submit_timeout_s: how long a submission may wait for the ledger, and again for the quorum.
        submissions_per_s: how many entries one address may submit; 0 sets no limit, for a node behind a proxy.
        key_submissions_per_s: how many entries one signing key may submit; 0 sets no limit.
        reads_per_s: how many tokens for reads one address gets (not this machine itself); what each read costs is in
            `node.api.reads`. 0 sets no limit.
        claims_per_hour, key_claims_per_hour: how many claims one address, and one signing key, may submit; 0 sets no
            limit. The verification work that this node lets into the ledger.
        connections_max: open at the same time.
        address_connections_max: of them, from one address (not from this machine itself); 0 sets no limit.
        tls_certificate, tls_private_key: PEM; None for an API without TLS.
        tls_authorities: PEM, who vouches for the certificates of the other nodes' APIs; None for the system's.
        explorer: whether the ledger is shown as pages for people, under /explorer/.
    """

    host: str
    port: int
    submit_timeout_s: int
    submissions_per_s: int
    key_submissions_per_s: int
    reads_per_s: int
    claims_per_hour: int
    key_claims_per_hour: int
    connections_max: int
    address_connections_max: int
    tls_certificate: Path | None
    tls_private_key: Path | None
    tls_authorities: Path | None
    explorer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftBinding:
    """The consensus port.

    Attributes:
        bind_host: where it listens; empty for the address that the policy gives this node.
        profile: which times suit the network between the members, a key of `node.raft.PROFILES`.
    """

    bind_host: str
    profile: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobSettings:
    """Limits of the blob store.

    Attributes:
        blob_bytes_max, total_bytes_max: of one upload, of all.
        cache_bytes_max: of all files fetched for claims; room for three of the largest models and for evidence.
        unclaimed_age_max_s: how long an upload is kept that no claim names.
    """

    blob_bytes_max: int
    total_bytes_max: int
    cache_bytes_max: int
    unclaimed_age_max_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSettings:
    """Fetching what claims point at.

    Attributes:
        allow_private_addresses: whether https pointers may lead to loopback, private and link-local addresses, and
            endpoints may be asked by http on loopback.
        file_directory: where file:// pointers may lead, an absolute path; empty where they may lead nowhere.
        timeout_s: longest time for one file, and for asking an endpoint everything.
        unreachable_retry_s: how long an unreachable pointer is tried again before the node votes on it.
    """

    allow_private_addresses: bool
    file_directory: str
    timeout_s: int
    unreachable_retry_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierSettings:
    """The verifier process.

    Attributes:
        device: where to compute: "auto" for the GPU where there is one, or "cpu", "cuda", "cuda:0".
        threads: CPU threads of one verification.
        timeout_s: longest time for one claim; then the process is killed and the vote says so.
        memory_bytes_max: private memory that a verification on the CPU may add.
        controls_directory: public weights to hold every claim against, <architecture>/<name>.safetensors; an absolute
            path, empty for none. Nodes of one ledger do well to keep the same ones.
    """

    device: str
    threads: int
    timeout_s: int
    memory_bytes_max: int
    controls_directory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A parsed node.toml; all paths are absolute."""

    name: str
    genesis: Path
    state_directory: Path
    keys: KeyPaths
    api: ApiSettings
    raft: RaftBinding
    blobs: BlobSettings
    fetch: FetchSettings
    verifier: VerifierSettings


def load_config(path: Path) -> Config:
    """Read node.toml.

    Raises:
        ConfigError: it cannot be read, or naming the key that is unknown, missing or out of range.
    """
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; is {path.parent} the directory of a node?") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        return _parse(cast("Value", read), path.absolute().parent)
    except MalformedError as error:
        raise ConfigError(f"{path}: {error}") from error


def check_directories(config: Config) -> None:
    """Check that the directories of others' files that the settings name are there.

    Raises:
        ConfigError: naming the key and the directory.
    """
    named = {
        "[fetch] file_directory": config.fetch.file_directory,
        "[verifier] controls_directory": config.verifier.controls_directory,
    }
    for key, directory in named.items():
        if directory and not Path(directory).is_dir():
            raise ConfigError(f"{key}: {directory}: no such directory; it may be misspelt, or its volume not mounted")


def _parse(value: Value, base: Path) -> Config:
    top = schema.fields(value, _TOP, what="node.toml")
    keys = {name: base / cast("str", path) for name, path in cast("dict[str, object]", top["keys"]).items()}
    sections: dict[str, dict[str, object]] = {
        name: cast("dict[str, object]", top[name]) for name in ("api", "raft", "blobs", "fetch", "verifier")
    }
    api = sections["api"]
    api |= {name: base / cast("str", api[name]) if api[name] else None for name in _API_FILES}
    return Config(
        name=cast("str", top["name"]),
        genesis=base / cast("str", top["genesis"]),
        state_directory=base / cast("str", top["state_directory"]),
        keys=KeyPaths(**keys),
        api=ApiSettings(**api),  # type: ignore[arg-type]  # schema.fields returns exactly these, checked
        raft=RaftBinding(**sections["raft"]),  # type: ignore[arg-type]  # likewise
        blobs=BlobSettings(**sections["blobs"]),  # type: ignore[arg-type]  # likewise
        fetch=FetchSettings(**sections["fetch"]),  # type: ignore[arg-type]  # likewise
        verifier=VerifierSettings(**sections["verifier"]),  # type: ignore[arg-type]  # likewise
    )


def _section(name: str, checkers: dict[str, schema.Checker[object]]) -> schema.Checker[object]:
    return lambda value: schema.fields(value, checkers, what=f"[{name}]")


def _boolean(value: Value) -> bool:
    if not isinstance(value, bool):
        raise MalformedError("expected true or false")
    return value


def _absolute_or_empty(value: Value) -> str:
    path = schema.text(4096, 0)(value)
    if path and not Path(path).is_absolute():
        raise MalformedError("expected an absolute path, or nothing")
    return path


def _profile(value: Value) -> str:
    name = schema.text(16)(value)
    if name not in PROFILES:
        raise MalformedError(f"expected one of {', '.join(sorted(PROFILES))}")
    return name


def _device(value: Value) -> str:
    name = schema.text(32)(value)
    if not _DEVICE.fullmatch(name):
        raise MalformedError(f"expected auto, cpu, cuda or cuda:N, not {shown(name)}")
    return name


_PATH = schema.text(4096)
_DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]{1,3})?")
_DAY_S = 86400
_API_FILES = ("tls_certificate", "tls_private_key", "tls_authorities")  # the empty path is none
_TOP: dict[str, schema.Checker[object]] = {
    "name": schema.text(64),
    "genesis": _PATH,
    "state_directory": _PATH,
    "keys": _section(
        "keys", dict.fromkeys(("signing", "note", "cosigner", "tls_private_key", "tls_certificate"), _PATH)
    ),
    "api": _section(
        "api",
        {
            "host": schema.text(253),
            "port": schema.uint(65535, 1),
            "submit_timeout_s": schema.uint(600, 1),
            "submissions_per_s": schema.uint(10**6),
            "key_submissions_per_s": schema.uint(10**6),
            "reads_per_s": schema.uint(10**6),
            "claims_per_hour": schema.uint(10**6),
            "key_claims_per_hour": schema.uint(10**6),
            "connections_max": schema.uint(10**6, 1),
            "address_connections_max": schema.uint(10**6),
            **dict.fromkeys(_API_FILES, schema.text(4096, 0)),
            "explorer": _boolean,
        },
    ),
    "raft": _section("raft", {"bind_host": schema.text(253, 0), "profile": _profile}),
    "blobs": _section(
        "blobs",
        {
            "blob_bytes_max": schema.uint(64 * 1024 * _GIB, 1),
            "total_bytes_max": schema.uint(64 * 1024 * _GIB, 1),
            "cache_bytes_max": schema.uint(64 * 1024 * _GIB, 1),
            "unclaimed_age_max_s": schema.uint(365 * _DAY_S, 60),
        },
    ),
    "fetch": _section(
        "fetch",
        {
            "allow_private_addresses": _boolean,
            "file_directory": _absolute_or_empty,
            "timeout_s": schema.uint(_DAY_S, 1),
            "unreachable_retry_s": schema.uint(_DAY_S),
        },
    ),
    "verifier": _section(
        "verifier",
        {
            "device": _device,
            "threads": schema.uint(1024, 1),
            "timeout_s": schema.uint(_DAY_S, 1),
            "memory_bytes_max": schema.uint(64 * 1024 * _GIB, 64 * 2**20),
            "controls_directory": _absolute_or_empty,
        },
    ),
}
