"""The `wmreg` command: finds the verb, runs it, prints its report, turns errors into one line and an exit code.

A verb's module is imported when the verb is used, so `wmreg --help` needs neither torch nor aiohttp (DESIGN 8).

EXIT_CODES says what the exit codes mean. WMREG_DEBUG=1 adds the traceback of an error.
"""

import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from client.errors import INTERNAL, USAGE, ClientError, describe, exit_code_of
from client.output import Report, json_text, printable
from registry.errors import RegistryError

INTERRUPTED = 130  # 128 + SIGINT, as shells count
BROKEN_PIPE = 141  # 128 + SIGPIPE

EXIT_CODES = (
    "Exit codes: 0 done, 1 refused or invalid, 2 usage, 3 not trusted by the policy, 4 unavailable, 5 the log is "
    "inconsistent, 70 an internal error, a full disk, or a result that could not be written. WMREG_DEBUG=1 adds the "
    "traceback of an error."
)

# Name and one line of help, here and not in the verbs: listing them must not import them.
VERBS = {
    "keygen": "Make an owner's signing key, or a watermark key for a training loop of his own.",
    "train": "Train a model without a watermark: a baseline or a control.",
    "embed": "Train or fine-tune a model with a watermark.",
    "measure": "Count the triggers that a model answers, on this machine.",
    "attack": "Attack a marked model on this machine, and see what is left of the mark.",
    "publish": "Publish an owner's commitments; then the model may be released.",
    "claim": "Claim a suspicious model and wait for the verdict.",
    "challenge": "Object to somebody else's claim.",
    "withdraw": "Take back a publication or a claim.",
    "rotate": "Move to another signing key.",
    "status": "Show a claim, its votes and its verdict.",
    "show": "Show one entry of the ledger, checked against the policy.",
    "search": "Find entries by any hash, or by their owner.",
    "log": "Page through the ledger.",
    "watch": "Follow what touches one's models, and tell it to webhooks and mailboxes.",
    "verify": "Check a receipt, a certificate or evidence, offline.",
    "audit": "Download the whole ledger and check everything.",
    "policy": "Keep the trust policy file up to date.",
    "cluster": "Make a new ledger of several nodes.",
    "node": "Make, run and look after a verifier node, change the members, ask how all nodes are.",
    "serve-model": "Serve a model to whoever asks, as a prediction endpoint that nodes can be sent to.",
    "demo": "Play the whole life of a model on this machine.",
    "bench": "Make a measurement of bench/ again, in a checkout.",
}


class LazyGroup(click.Group):
    """A group whose commands are the `command` of client.verbs.<name>."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Names in the order of VERBS, the order of a model's life."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a verb; None for an unknown one."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"client.verbs.{cmd_name.replace('-', '_')}").command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs that begin so, without importing them, and options."""
        verbs = [CompletionItem(name, help=text) for name, text in VERBS.items() if name.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 (click's signature)
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        click.echo(f"wmreg {version('wmreg')}")
    except PackageNotFoundError:
        click.echo("wmreg (a checkout that is not installed)")
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show it.")
def wmreg() -> None:
    """A decentralized ownership registry for neural networks."""


def main() -> None:
    """Entry point of the installed command."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores a hang-up, and so do we then
            signal.signal(number, _end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where the caller closed it
            stream.reconfigure(errors="backslashreplace")  # a terminal of another encoding shows what it can
    sys.exit(run(sys.argv[1:]))


def _end(number: int, _frame: object) -> NoReturn:
    """Told to end: as an exception, so that no half-written file stays."""
    raise SystemExit(128 + number)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code."""
    as_json = "--json" in arguments
    try:
        answer = wmreg.main(list(arguments), prog_name="wmreg", standalone_mode=False)
    except click.ClickException as error:
        return _fail_usage(error, as_json=as_json)
    except BrokenPipeError:
        return _leave_broken_pipe()
    except (ClientError, RegistryError, OSError) as error:
        code, message = describe(error)
        return _fail(code, message, exit_code=exit_code_of(error), as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", "interrupted", exit_code=INTERRUPTED, as_json=as_json)
    except Exception as error:  # noqa: BLE001 -- the last handler: a mistake of ours is told in one line as well
        return _fail_unexpected(error, as_json=as_json)
    return _finish(answer, as_json=as_json)


def _finish(answer: object, *, as_json: bool) -> int:
    if not isinstance(answer, Report):  # --help and --version answer with click's own exit code
        return answer if isinstance(answer, int) else 0
    try:
        text = answer.render(as_json=as_json)
    except ValueError as error:  # a number that JSON does not have
        return _fail_internal(error, as_json=as_json)
    if sys.stdout is None:  # the caller closed it, and print would say nothing of that
        return _fail("output", "the result could not be printed: no stdout", exit_code=INTERNAL, as_json=False)
    try:
        print(text, flush=True)  # noqa: T201 (this is where results are printed)
    except BrokenPipeError:
        return _leave_broken_pipe()
    except OSError as error:
        _abandon_stdout()
        message = f"the result could not be printed: {error.strerror}"
        return _fail("output", message, exit_code=INTERNAL, as_json=False)
    return answer.exit_code


def _fail_unexpected(error: Exception, *, as_json: bool) -> int:
    """Something is not installed, or is another's of the same name; whatever else it is, is a mistake of ours."""
    if not isinstance(error, ImportError):
        return _fail_internal(error, as_json=as_json)
    import wmreg as start
    from client.extras import explained

    known, trouble = explained(error), start.shared()
    if known is not None:
        return _fail(known.code, str(known), exit_code=known.exit_code, as_json=as_json)
    if trouble is not None:
        return _fail("import_name", f"{trouble}; {start.REMEDY}", exit_code=USAGE, as_json=as_json)
    return _fail_internal(error, as_json=as_json)


def _fail_internal(error: Exception, *, as_json: bool) -> int:
    message = f"internal error: {type(error).__name__}: {error} (WMREG_DEBUG=1 shows where)"
    return _fail("internal", " ".join(message.split()), exit_code=INTERNAL, as_json=as_json)


def _fail_usage(error: click.ClickException, *, as_json: bool) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return USAGE
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f" (see {error.ctx.command_path} --help)"
    return _fail("usage", " ".join(error.format_message().split()) + hint, exit_code=USAGE, as_json=as_json)


def _fail(code: str, message: str, *, exit_code: int, as_json: bool) -> int:
    if os.environ.get("WMREG_DEBUG") == "1":
        traceback.print_exc()
    if as_json:
        click.echo(json_text({"error": {"code": code, "message": message}}))
    else:
        click.echo(f"wmreg: {printable(message)}", err=True)
    return exit_code


def _leave_broken_pipe() -> int:
    """The reader went away (`wmreg log | head`): say nothing more, also not while Python shuts down."""
    _abandon_stdout()
    return BROKEN_PIPE


def _abandon_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
