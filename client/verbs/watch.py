"""`wmreg watch`: follow what touches one's models, and tell it."""

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.digests import PUBLIC_KEY, hash_of
from client.output import json_text, printable
from client.watch.hook_options import HookOptions, hook_options

if TYPE_CHECKING:
    from client.watch.delivery import Delivery, Hook
    from client.watch.events import Event
    from registry.trust import TrustPolicy

KINDS = ("genesis", "policy", "publish", "claim", "vote", "verdict", "challenge", "withdraw", "rotate", "unreadable")


@dataclass(frozen=True, slots=True)
class Printer:
    """Stdout, one line for each event."""

    as_json: bool
    name: str = "stdout"
    shown: str = "stdout"

    async def deliver(self, event: "Event") -> None:
        """Print an event."""
        click.echo(json_text(event.document()) if self.as_json else event.line())


@click.command(
    "watch",
    epilog="\b\nExample:\n"
    "  wmreg watch mymodel --webhook https://hooks.example/wmreg --webhook-secret webhook.secret\n"
    "  wmreg watch --owner 9ab1… --email me@example.org --smtp smtps://me%40example.org@mx.example --smtp-password pw\n"
    "  wmreg watch --once --json",
)
@click.argument("what", nargs=-1)
@click.option("--owner", "owners", multiple=True, help="A public key: whatever it signs, and the key it moves to.")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Only events of this kind; repeatable.")
@click.option(
    "--all", "with_policy", is_flag=True, help="Beside WHAT also changes of the policy, as touching everybody."
)
@click.option(
    "--cursor", "cursor_path", type=options.NEW_FILE, help="Where it stands.  [default: a file in the state directory]"
)
@click.option(
    "--from",
    "start",
    type=options.INDEX,
    help="Where a new cursor begins: an entry's index, 0 for all of them.  [default: what comes after this]",
)
@click.option("--once", is_flag=True, help="Tell what there is, and end.")
@click.option(
    "--interval-s",
    type=options.FiniteRange(0.1, 86400),
    default=10.0,
    show_default=True,
    help="How often to look for new entries.",
)
@hook_options
@options.policy
@options.patience
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document in each line.")
def command(  # noqa: PLR0913 (one parameter for each option)
    *,
    what: tuple[str, ...],
    owners: tuple[str, ...],
    kinds: tuple[str, ...],
    with_policy: bool,
    cursor_path: Path | None,
    start: int | None,
    once: bool,
    interval_s: float,
    hooks: HookOptions,
    policy_path: Path,
    patience_s: float,
    as_json: bool,
) -> int:
    """Follow the ledger's new entries that touch WHAT, until SIGTERM, and tell each on stdout and to the hooks.

    WHAT is a hash of 64 hexadecimal digits, a file such as a model, the URL of a prediction endpoint, or a directory
    that was published from: its publication, its model, the models that it claims. Without WHAT and --owner, everything
    is told.

    No node is believed: every entry between two looks is proven to be in the log, and every checkpoint to continue the
    one before. The cursor moves when an event was taken; after a crash the last one may be told again, with the same
    id, and none is lost. Each hook has a cursor of its own and is tried until it takes its event.

    Exit codes: 0 told to end, or with --once all is told; 4 with --once, nodes or a hook are unavailable; 5 the log is
    inconsistent, which the hooks are told as well.
    """
    from client.memory import Memory
    from client.watch.asking import read_watched
    from client.watch.cursor import CursorFile, open_cursors
    from client.watch.delivery import Delivery, Warner
    from client.watch.watching import Pace

    trust = options.load_policy(policy_path)
    keys = [hash_of(owner, what="--owner", kind=PUBLIC_KEY) for owner in owners]
    watched = read_watched(what, keys, kinds=kinds, with_policy=with_policy, origin=trust.origin)
    followers: list[Hook] = [Printer(as_json), *hooks.hooks()]
    path = cursor_path or CursorFile.default_path(trust.origin)
    with open_cursors(path, trust.origin) as cursors:
        delivery = Delivery(
            open_ledger=lambda: options.ledger(_policy_again(policy_path, trust), patience_s),
            memory=Memory.default(),
            watched=watched,
            cursors=cursors,
            pace=Pace(interval_s=interval_s, once=once),
            patience_s=patience_s,
            warn=Warner(_warn),
        )
        asyncio.run(_until_told_to_end(delivery, followers, start))
    return 0


async def _until_told_to_end(delivery: "Delivery", followers: "list[Hook]", start: int | None) -> None:
    """Run until SIGTERM or SIGINT, which end it between two deliveries: one in flight counts as not taken."""
    working = asyncio.current_task()
    if working is None:
        raise RuntimeError("a coroutine runs in a task")
    loop, told = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        told.set()
        working.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    try:
        await delivery.run(followers, start=start)
    except asyncio.CancelledError:
        if not told.is_set():
            raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _policy_again(path: Path, known: "TrustPolicy") -> "TrustPolicy":
    """The policy file as it is now, for it is updated while a service runs; as it was, when it cannot be read."""
    from client.errors import ClientError

    with suppress(ClientError, OSError):
        trust = options.load_policy(path)
        if trust.origin == known.origin:
            return trust
    return known


def _warn(text: str) -> None:
    click.echo(f"wmreg: {printable(text)}", err=True)
