"""`wmreg status`: how a claim stands."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.digests import hash_of
from client.output import Report

if TYPE_CHECKING:
    from client.sdk.results import ClaimStatus


@click.command("status", epilog="Example:  wmreg status 9ab1…")
@click.argument("claim_hash")
@options.policy
@options.patience
@options.as_json
def command(claim_hash: str, policy_path: Path, patience_s: float) -> Report:
    """Show the claim CLAIM_HASH: its votes, their numbers and the verdict.

    Votes are shown by a node's word. A verdict VERIFIED or INTACT is reported only after its certificate was checked,
    any other one when a quorum of the nodes tells the same.

    Exit codes: 0 the model is verified, or intact, and the claim prevails, 1 it is not or does not, 4 there is no
    verdict yet, or none that a quorum of the nodes tells alike.
    """
    digest = hash_of(claim_hash, what="CLAIM_HASH")
    with options.open_client(policy_path, patience_s) as ledger:
        return _report(ledger.status(digest))


def _report(status: "ClaimStatus") -> Report:
    from client.stories import older_publication_text, receipt_document

    state, older = status.state, status.older_publication
    text = [f"claim  {state.claim}", state.suspect, "", state.votes_table(), "", state.explain()]
    found: dict[str, object] = {
        "explanation": state.explain(),
        "confirmed": state.confirmed,
        "older_publication": None,
    }
    if older is not None:
        text.append(older_publication_text(older.verified))
        found["older_publication"] = receipt_document(older.verified)
    return Report(document=state.document | found, text="\n".join(text), exit_code=state.exit_code)
