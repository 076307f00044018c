"""`wmreg challenge`: object to somebody's claim."""

import time
from pathlib import Path

import click

from client import options
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
    from client.bundle import open_bundle
    from client.verbs.acting import act
    from registry.messages import Challenge

    claim, private_key = options.hash_of(claim_hash, what="CLAIM_HASH"), options.load_key(signing_key_path)
    trust = options.load_policy(policy_path)
    publication = open_bundle(directory).load_publication(origin=trust.origin).hash
    message = Challenge(time_s=int(time.time()), claim=claim, publication=publication, reason=reason)
    return act(message, [private_key], trust, patience_s)
