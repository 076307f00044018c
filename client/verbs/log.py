"""`wmreg log`: the ledger page by page."""

import asyncio
from pathlib import Path
from typing import cast

import click

from client import options
from client.errors import InvalidError
from client.output import Report, table, utc

PAGE = 20


@click.command("log")
@click.option("--start", type=click.IntRange(0), help="Index of the first entry.  [default: the last page]")
@click.option("--limit", type=click.IntRange(1, 100), default=PAGE, show_default=True, help="Entries to show.")
@options.policy
@options.patience
@options.as_json
def command(start: int | None, limit: int, policy_path: Path, patience_s: float) -> Report:
    """Page through the ledger, by one node's word; `wmreg show` and `wmreg audit` check it."""
    trust = options.load_policy(policy_path)

    async def run() -> dict[str, object]:
        async with options.ledger(trust, patience_s) as api:
            first = start
            if first is None:
                size = (await api.entries(start=0, limit=1)).get("size")
                first = max(0, size - limit) if isinstance(size, int) else 0
            return await api.entries(start=first, limit=limit)

    page = asyncio.run(run())
    return Report(document=page, text=_text(page))


def _text(page: dict[str, object]) -> str:
    try:
        entries = cast("list[dict[str, object]]", page["entries"])
        rows = [[e["index"], utc(int(str(e["recorded_s"]))), e["kind"], e["message_hash"]] for e in entries]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidError(f"a node's answer is not a page of the ledger: {error!r}", code="malformed") from error
    more = f"\n\nmore: --start {page['next']}" if page.get("next") is not None else ""
    return f"{table(['index', 'recorded', 'kind', 'message'], rows)}\n\n{page.get('size')} entries in all{more}"
