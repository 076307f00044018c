"""`wmreg challenge`: object to somebody's claim."""

from pathlib import Path

import click

from client import options
from client.digests import hash_of
from client.output import Report


@click.command("challenge", epilog="Example:  wmreg challenge 9ab1… --evidence mymodel --reason 'he stole it from me'")
@click.argument("claim_hash")
@click.option("--evidence", "directory", type=options.DIRECTORY, required=True, help="Your published directory.")
@click.option("--reason", required=True, help="For people; it stays in the ledger.")
@options.signing_key
@options.policy
@options.patience
@options.as_json
def command(
    claim_hash: str, directory: Path, reason: str, signing_key_path: Path, policy_path: Path, patience_s: float
) -> Report:
    """Object to the claim with the hash CLAIM_HASH, as the owner of another publication.

    An objection decides nothing. It is shown with the verdict and stands in certificates that are made after it.
    """
    from client.verbs.acting import act_report

    claim = hash_of(claim_hash, what="CLAIM_HASH")
    with options.open_client(policy_path, patience_s, owner=signing_key_path) as ledger:
        return act_report(
            ledger.challenge(claim, directory, reason=reason), again="was objected to before", reason=reason
        )
