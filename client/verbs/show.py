"""`wmreg show`: one message of the ledger, from a receipt that was checked, so by no node's word."""

from pathlib import Path

import click

from client import options
from client.digests import hash_of
from client.output import Report


@click.command("show", epilog="Example:  wmreg show 9ab1…")
@click.argument("message_hash")
@options.policy
@options.patience
@options.as_json
def command(message_hash: str, policy_path: Path, patience_s: float) -> Report:
    """Show the entry whose message has the hash MESSAGE_HASH, checked against the policy."""
    from client import stories
    from client.bodies import body_document, body_text

    digest = hash_of(message_hash, what="MESSAGE_HASH")
    with options.open_client(policy_path, patience_s) as ledger:
        verified = ledger.show(digest).verified
    body = body_document(verified.signed.message)
    return Report(
        document=stories.receipt_document(verified) | {"body": body},
        text=f"{stories.receipt_text(verified)}\n\n{body_text(body)}",
    )
