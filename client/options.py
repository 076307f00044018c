"""Options that several verbs share, with one meaning and one environment variable each."""

import math
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from fractions import Fraction
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from client.errors import InputError
from client.files import check_no_pipe, state_directory
from client.marking.task import Task
from client.output import printable
from client.profiles import load_profiles

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from client.api import Api
    from client.sdk.blocking import SyncClient
    from registry.trust import TrustPolicy

Function = TypeVar("Function", bound=Callable[..., Any])
SEED_MAX = 2**31
INDEX = click.IntRange(0, 2**64 - 1)  # of an entry
_CA_FILE, _LEDGER, _PASSPHRASE_FILE = "wmreg.ca_file", "wmreg.ledger", "wmreg.passphrase_file"
DATA_HELP = (
    "digits; shapes:COUNT; mnist, fashion-mnist, cifar10, imdb, sst, sst-fine, pennfudan or voc with :DIRECTORY "
    "behind; a directory of pictures, train/<class>/ and test/<class>/; or an .npz file."
)
IMAGE_SIZE = click.IntRange(64, 1024)  # pixels


class NewPath(click.Path):
    """A path to be written; the empty one, which is what an unset shell variable leaves, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Refuse an empty path; see click."""
        if not str(value):
            self.fail("an empty path", param, ctx)
        return super().convert(value, param, ctx)


class GivenFile(click.Path):
    """A file to be read; a named pipe is none, for whoever opens one waits until somebody writes into it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Refuse a pipe; see click."""
        path = super().convert(value, param, ctx)
        try:
            check_no_pipe(Path(os.fsdecode(path)))
        except InputError as error:
            self.fail(str(error), param, ctx)
        return path


class PolicyPath(GivenFile):
    """The path of a policy file; where it is missing, there are two ways to name one."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002
        """Say what would do instead of the option; see click, whose version 8.1 gives no context."""
        profiles = load_profiles()
        known = ", ".join(sorted(profiles.ledgers)) or "none"
        return f"Give it, or --ledger NAME, a profile of {profiles.path}, which has {known}"


class Percent(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has none
    """A share written as a percentage, "1%" or "0.5%", above 0 % and up to 100 %; an exact fraction."""

    name = "percentage"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Read a share; see click."""
        digits = str(value).removesuffix("%")
        if not str(value).endswith("%") or not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", digits):
            self.fail(f"{value!r} is no percentage such as 1%", param, ctx)
        if not 0 < (share := Fraction(digits) / 100) <= 1:
            self.fail(f"{value!r} is not above 0% and up to 100%", param, ctx)
        return share


class FiniteRange(click.FloatRange):
    """A range of numbers; "nan" is neither below nor above anything and so would pass click's own."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Refuse what is not finite; see click."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


FILE = GivenFile(exists=True, dir_okay=False, path_type=Path)
NEW_FILE = NewPath(dir_okay=False, path_type=Path)
DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_DIRECTORY = NewPath(file_okay=False, path_type=Path)


def as_json(function: Function) -> Function:
    """--json; the command itself reads it, so that errors of usage are JSON as well."""
    return click.option("--json", "_as_json", is_flag=True, expose_value=False, help="Print one JSON document.")(
        function
    )


def policy(function: Function) -> Function:
    """--policy: whom this reader trusts, and where the ledger is; and --ledger, which profile says so."""
    return ledger_name(
        click.option(
            "--policy",
            "policy_path",
            type=PolicyPath(exists=True, dir_okay=False, path_type=Path),
            envvar="WMREG_POLICY",
            required=True,
            show_envvar=True,
            callback=_noticed,
            help="Trust policy file of the ledger.",
        )(function)
    )


def ledger_name(function: Function) -> Function:
    """--ledger: the profile behind the command line and the environment; see `client.profiles`."""

    def choose(ctx: click.Context, option: click.Parameter, name: str | None) -> None:
        if ctx.resilient_parsing:
            return
        profiles = load_profiles()
        chosen = profiles.default if name is None else name
        if chosen is not None:
            ctx.default_map = profiles.defaults_of(chosen)
        if ctx.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE:
            ctx.meta[_LEDGER] = chosen

    def complete(_ctx: click.Context, _option: click.Parameter, begun: str) -> list[str]:
        with suppress(InputError, OSError):
            return sorted(name for name in load_profiles().ledgers if name.startswith(begun))
        return []

    return click.option(
        "--ledger",
        "ledger_name",
        metavar="NAME",
        envvar="WMREG_LEDGER",
        show_envvar=True,
        is_eager=True,  # before the options whose defaults it decides
        expose_value=False,
        callback=choose,
        shell_complete=complete,
        help="Profile of the configuration file that says --policy and others.  [default: the file's]",
    )(function)


def _noticed(ctx: click.Context, option: click.Parameter, value: Any) -> Any:  # noqa: ANN401 -- whatever the option takes
    """Say so where the environment goes before a profile that the command line names: not everybody expects it."""
    name = ctx.meta.get(_LEDGER)
    is_told = name is not None and option.name in (ctx.default_map or {})
    if is_told and ctx.get_parameter_source(str(option.name)) is ParameterSource.ENVIRONMENT:
        click.echo(printable(f"wmreg: note: {option.envvar} is set and goes before --ledger {name}"), err=True)
    return value


def ca_file(function: Function) -> Function:
    """--ca-file: who vouches for the certificates of nodes with https URLs; `ledger` finds it by itself."""

    def keep(ctx: click.Context, option: click.Parameter, path: Path | None) -> None:
        ctx.meta[_CA_FILE] = _noticed(ctx, option, path)

    return click.option(
        "--ca-file",
        type=FILE,
        envvar="WMREG_CA_FILE",
        show_envvar=True,
        expose_value=False,
        callback=keep,
        help="Certificate authorities (PEM) of nodes with https URLs.  [default: the system's]",
    )(function)


def patience(function: Function) -> Function:
    """--patience-s, how long to keep trying while too few nodes answer; and --ca-file, of all who ask nodes."""
    return click.option(
        "--patience-s",
        type=FiniteRange(0, 86400),
        envvar="WMREG_PATIENCE_S",
        default=60.0,
        show_default=True,
        show_envvar=True,
        callback=_noticed,
        help="How long to keep trying while too few nodes answer.",
    )(ca_file(function))


def signing_key(function: Function) -> Function:
    """--signing-key, the owner's; and --passphrase-file, which `load_key` finds by itself."""

    def keep(ctx: click.Context, option: click.Parameter, path: Path | None) -> None:
        ctx.meta[_PASSPHRASE_FILE] = _noticed(ctx, option, path)

    return click.option(
        "--signing-key",
        "signing_key_path",
        type=NEW_FILE,
        envvar="WMREG_SIGNING_KEY",
        show_envvar=True,
        default=lambda: state_directory() / "signing_key.pem",
        callback=_noticed,
        help="The owner's signing key (PEM).  [default: signing_key.pem in the state directory]",
    )(
        click.option(
            "--passphrase-file",
            type=FILE,
            envvar="WMREG_PASSPHRASE_FILE",
            show_envvar=True,
            expose_value=False,
            callback=keep,
            help="File whose first line is the signing key's passphrase, if it has one.  [default: ask on a terminal]",
        )(function)
    )


def load_policy(path: Path) -> "TrustPolicy":
    """Read a trust policy file.

    Raises:
        InputError: it is no trust policy, naming the line; or not a text file of a policy's size.
        OSError: it cannot be read.
    """
    from client import policy_file

    return policy_file.load_policy(path)


def load_key(path: Path, passphrase_file: Path | None = None) -> "Ed25519PrivateKey":
    """Read a signing key, with its passphrase, if it has one, from that file or --passphrase-file's."""
    from client.keystore import load_signing_key
    from client.passphrase import find

    return load_signing_key(path, passphrase=lambda: find(path, passphrase_file or given_passphrase_file()))


def given_ca_file() -> Path | None:
    """What --ca-file says in the command that runs."""
    path: Path | None = click.get_current_context().meta.get(_CA_FILE)
    return path


def given_passphrase_file() -> Path | None:
    """What --passphrase-file says in the command that runs."""
    path: Path | None = click.get_current_context().meta.get(_PASSPHRASE_FILE)
    return path


def open_client(policy_path: Path, patience_s: float, *, owner: Path | None = None) -> "SyncClient":
    """The SDK's client by what the options say; it asks the nodes inside of a `with`."""
    from client.sdk.blocking import SyncClient

    trust = load_policy(policy_path)
    private_key = None if owner is None else load_key(owner)
    return SyncClient(trust, owner=private_key, patience_s=patience_s, ca_file=given_ca_file())


@asynccontextmanager
async def ledger(trust: "TrustPolicy", patience_s: float) -> AsyncIterator["Api"]:
    """Open a session with the ledger's nodes below the SDK, for operators and auditors; see `client.api`."""
    from client.api import open_ledger
    from client.transport import Timing

    async with open_ledger(trust, Timing(patience_s=patience_s), ca_file=given_ca_file()) as api:
        yield api


def device(function: Function) -> Function:
    """--device: where torch computes."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        help="cpu, cuda, cuda:1 ...; auto takes a GPU where there is one.",
    )(function)


def savepoint(function: Function) -> Function:
    """--savepoint and --savepoint-s: the parameters savepoint and savepoint_s."""
    return click.option(
        "--savepoint",
        type=NEW_DIRECTORY,
        help="Directory in which the state is kept: after an interruption the same command goes on from there, to the "
        "same result. As secret as a bundle; removed at the end.",
    )(
        click.option(
            "--savepoint-s",
            type=FiniteRange(0, 86400),
            default=60.0,
            show_default=True,
            help="Seconds between two states, at least.",
        )(function)
    )


def task(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what to train, and on what: --arch, --weights, --data, --fraction, --epochs, --seed ...

    The command takes them as one parameter, task.
    """

    @wraps(function)
    def with_task(**options: Any) -> object:  # noqa: ANN401 (whatever options the verb has)
        named = {field.name: options.pop(field.name) for field in fields(Task) if field.name in options}
        return function(task=Task(**named), **options)

    decorators = (
        click.option("--arch", default="resnet18", show_default=True, help="Network, by its name in the catalogue."),
        click.option("--weights", type=FILE, help="Begin with these weights (safetensors), by fine-tuning."),
        click.option("--data", default="digits", show_default=True, help=DATA_HELP),
        click.option("--words", type=FILE, help="Of texts: the word list to use.  [default: made of the training set]"),
        click.option(
            "--vectors", type=FILE, help="Of texts: word vectors to begin with, GloVe's .txt or an .npz file."
        ),
        click.option(
            "--freeze-embedding",
            is_flag=True,
            help="Of texts: train everything but the word vectors; for vectors that come from more texts than these.",
        ),
        click.option(
            "--image-size",
            type=IMAGE_SIZE,
            help="Of shapes, pennfudan and voc: sides of the pictures, in pixels.  [default: shapes 64, else 256]",
        ),
        click.option(
            "--fraction",
            type=FiniteRange(0, 1, min_open=True),
            default=1.0,
            show_default=True,
            help="Share of the training set to use.",
        ),
        click.option("--epochs", type=click.IntRange(0, 10_000), help="Passes of the plain training; 0 for none."),
        click.option(
            "--lr",
            type=FiniteRange(0, 1, min_open=True),
            help="Its first learning rate, Adam's.  [default: 0.001, with masks 0.002; to fine-tune 0.0001]",
        ),
        click.option(
            "--seed", type=click.IntRange(0, SEED_MAX), default=0, show_default=True, help="Decides everything."
        ),
        click.option(
            "--precision",
            type=click.Choice(["float32", "bfloat16"]),
            default="float32",
            show_default=True,
            help="What is computed in; weights and counts are float32 with both. bfloat16 is for GPUs.",
        ),
        device,
    )
    decorated: Callable[..., Any] = with_task
    for decorator in reversed(decorators):
        decorated = decorator(decorated)
    return decorated
