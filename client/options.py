"""Options that several verbs share, with one meaning and one environment variable each."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from client.files import read_text, state_directory
from registry.errors import RegistryError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from client.api import Api
    from registry.trust import TrustPolicy

Function = TypeVar("Function", bound=Callable[..., Any])
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_DIRECTORY = click.Path(file_okay=False, path_type=Path)


def as_json(function: Function) -> Function:
    """--json; the command itself reads it, so that errors of usage are JSON as well."""
    return click.option("--json", "_as_json", is_flag=True, expose_value=False, help="Print one JSON document.")(
        function
    )


def policy(function: Function) -> Function:
    """--policy: whom this reader trusts, and where the ledger is."""
    return click.option(
        "--policy",
        "policy_path",
        type=FILE,
        envvar="WMREG_POLICY",
        required=True,
        show_envvar=True,
        help="Trust policy file of the ledger.",
    )(function)


def patience(function: Function) -> Function:
    """--patience-s: how long to keep trying while too few nodes answer."""
    return click.option(
        "--patience-s",
        type=click.FloatRange(0, 86400),
        envvar="WMREG_PATIENCE_S",
        default=60.0,
        show_default=True,
        show_envvar=True,
        help="How long to keep trying while too few nodes answer.",
    )(function)


def signing_key(function: Function) -> Function:
    """--signing-key: the owner's."""
    return click.option(
        "--signing-key",
        "signing_key_path",
        type=NEW_FILE,
        envvar="WMREG_SIGNING_KEY",
        show_envvar=True,
        default=lambda: state_directory() / "signing_key.pem",
        help="The owner's signing key (PEM).  [default: signing_key.pem in the state directory]",
    )(function)


def load_policy(path: Path) -> "TrustPolicy":
    """Read a trust policy file.

    Raises:
        MalformedError: naming the line.
        InputError, OSError: it cannot be read.
    """
    from registry.trust import POLICY_BYTES_MAX, TrustPolicy

    with naming(path):
        return TrustPolicy.parse(read_text(path, POLICY_BYTES_MAX))


def load_key(path: Path) -> "Ed25519PrivateKey":
    """Read the owner's signing key; see `client.keystore`."""
    from client.keystore import load_signing_key

    return load_signing_key(path)


@asynccontextmanager
async def ledger(trust: "TrustPolicy", patience_s: float) -> AsyncIterator["Api"]:
    """Open a session with the ledger's nodes; see `client.api`."""
    from client.api import open_ledger
    from client.transport import Timing

    async with open_ledger(trust, Timing(patience_s=patience_s)) as api:
        yield api


def hash_of(digits: str) -> bytes:
    """Read a message's hash from the command line; raises click.UsageError."""
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise click.UsageError(f"{digits[:80]!r} is not a message's hash: expected 64 hexadecimal digits")
    return digest


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put a file's path in front of what the rules object to in it."""
    try:
        yield
    except RegistryError as error:
        raise type(error)(f"{path}: {error}", code=error.code) from error


def device(function: Function) -> Function:
    """--device: where torch computes."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        help="cpu, cuda, cuda:1 ...; auto takes a GPU where there is one.",
    )(function)


def task(function: Function) -> Function:
    """The options that say what to train, and on what: --arch, --weights, --data, --fraction, --epochs, --seed."""
    decorators = (
        click.option("--arch", default="resnet18", show_default=True, help="Network, by its name in the catalogue."),
        click.option("--weights", type=FILE, help="Begin with these weights (safetensors), by fine-tuning."),
        click.option("--data", default="digits", show_default=True, help="digits, or an .npz file."),
        click.option(
            "--fraction",
            type=click.FloatRange(0, 1, min_open=True),
            default=1.0,
            show_default=True,
            help="Share of the training set to use.",
        ),
        click.option("--epochs", type=click.IntRange(0, 10_000), help="Passes of the plain training; 0 for none."),
        click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Decides everything."),
        device,
    )
    for decorator in reversed(decorators):
        function = decorator(function)
    return function
