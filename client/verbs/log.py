"""`wmreg log`: the ledger page by page."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.output import Report, table, utc
from registry.errors import QuorumError

if TYPE_CHECKING:
    from client.log_page import LogPage

PAGE = 20


@click.command("log")
@click.option("--start", type=click.IntRange(0), help="Index of the first entry.  [default: the last page]")
@click.option("--limit", type=click.IntRange(1, 100), default=PAGE, show_default=True, help="Entries to show.")
@options.policy
@options.patience
@options.as_json
def command(start: int | None, limit: int, policy_path: Path, patience_s: float) -> Report:
    """Page through the ledger, by one node's word; `wmreg show` and `wmreg audit` check it.

    Whether the ledger continues what was seen of it before is checked, if enough nodes answer.
    """
    trust = options.load_policy(policy_path)

    async def run() -> "LogPage":
        from client.memory import Memory, check_latest

        async with options.ledger(trust, patience_s) as api:
            with suppress(QuorumError):  # one node is enough to page through its log
                await check_latest(api, Memory.default())
            first = start
            if first is None:
                first = max(0, (await api.entries(start=0, limit=1)).size - limit)
            return await api.entries(start=first, limit=limit)

    page = asyncio.run(run())
    return Report(document=page.document, text=_text(page))


def _text(page: "LogPage") -> str:
    rows = [[line.index, utc(line.recorded_s), line.kind, line.message_hash] for line in page.lines]
    more = f"\n\nmore: --start {page.following}" if page.following is not None else ""
    return f"{table(['index', 'recorded', 'kind', 'message'], rows)}\n\n{page.size} entries in all{more}"
