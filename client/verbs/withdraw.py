"""`wmreg withdraw`: take back a publication or a claim."""

from pathlib import Path

import click

from client import options
from client.digests import hash_of
from client.output import Report


@click.command("withdraw", epilog="Example:  wmreg withdraw 3f0c… --reason 'published the wrong head'")
@click.argument("message_hash")
@click.option("--reason", required=True, help="For people; it stays in the ledger.")
@options.signing_key
@options.policy
@options.patience
@options.as_json
def command(message_hash: str, reason: str, signing_key_path: Path, policy_path: Path, patience_s: float) -> Report:
    """Take back the publication or claim with the hash MESSAGE_HASH. This cannot be undone.

    Nothing is erased: the ledger shows the message and its withdrawal. A withdrawn publication carries no claims any
    more, and those that stand on it fall; its watermark key cannot be published again.
    """
    from client.verbs.acting import act_report

    target = hash_of(message_hash, what="MESSAGE_HASH")
    with options.open_client(policy_path, patience_s, owner=signing_key_path) as ledger:
        return act_report(ledger.withdraw(target, reason=reason), again="was withdrawn before", reason=reason)
