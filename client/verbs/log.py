"""`wmreg log`: the ledger page by page."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.output import Report, json_text, printable, table, utc
from client.sdk import PAGE

if TYPE_CHECKING:
    from client.following import Followed
    from client.log_page import LogPage


@click.command("log", epilog="Example:  wmreg log --start 0 --limit 50")
@click.option("--start", type=options.INDEX, help="Index of the first entry.  [default: the last page]")
@click.option("--limit", type=click.IntRange(1, 100), default=PAGE, show_default=True, help="Entries to show.")
@click.option("--follow", "-f", is_flag=True, help="Go on with every new entry, until interrupted.")
@options.policy
@options.patience
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; with --follow, one in each line.")
def command(
    *, start: int | None, limit: int, follow: bool, policy_path: Path, patience_s: float, as_json: bool
) -> Report:
    """Page through the ledger, by one node's word; `wmreg show` and `wmreg audit` check it.

    Whether the ledger continues what was seen of it before is checked, if enough nodes answer. With --follow each entry
    is a line of its own, with --json a document in one line, and --limit says how many of the last ones come first.
    """
    with options.open_client(policy_path, patience_s) as ledger:
        if follow:
            for followed in ledger.follow(start=start, last=limit):
                click.echo(json_text(followed.document) if as_json else _line(followed))
        page = ledger.log(start=start, limit=limit)
    return Report(document=page.document, text=_text(page))


def _line(followed: "Followed") -> str:
    line = followed.line
    return f"{line.index:>8}  {utc(line.recorded_s)}  {printable(line.kind):<8}  {line.message_hash}"


def _text(page: "LogPage") -> str:
    rows = [[line.index, utc(line.recorded_s), line.kind, line.message_hash] for line in page.lines]
    more = f"\n\nmore: --start {page.following}" if page.following is not None else ""
    entries = "entry" if page.size == 1 else "entries"
    return f"{table(['index', 'recorded', 'kind', 'message'], rows)}\n\n{page.size} {entries} in all{more}"
