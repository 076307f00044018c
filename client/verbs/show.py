"""`wmreg show`: one message of the ledger, from a receipt that was checked, so by no node's word."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.output import Report

if TYPE_CHECKING:
    from client.api import Recorded


@click.command("show", epilog="Example:  wmreg show 9ab1…")
@click.argument("message_hash")
@options.policy
@options.patience
@options.as_json
def command(message_hash: str, policy_path: Path, patience_s: float) -> Report:
    """Show the entry whose message has the hash MESSAGE_HASH, checked against the policy."""
    from client import stories
    from client.bodies import body_document, body_text

    trust = options.load_policy(policy_path)
    digest = options.hash_of(message_hash, what="MESSAGE_HASH")

    async def run() -> "Recorded":
        from client.memory import Memory
        from client.publishing import keep_seen

        async with options.ledger(trust, patience_s) as api:
            recorded = await api.receipt(digest)
            await keep_seen(api, Memory.default(), recorded)
            return recorded

    verified = asyncio.run(run()).verified
    body = body_document(verified.signed.message)
    return Report(
        document=stories.receipt_document(verified) | {"body": body},
        text=f"{stories.receipt_text(verified)}\n\n{body_text(body)}",
    )
