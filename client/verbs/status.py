"""`wmreg status`: how a claim stands."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.output import Report

if TYPE_CHECKING:
    from client.api import Recorded
    from client.claim_state import ClaimState


@click.command("status", epilog="Example:  wmreg status 9ab1…")
@click.argument("claim_hash")
@options.policy
@options.patience
@options.as_json
def command(claim_hash: str, policy_path: Path, patience_s: float) -> Report:
    """Show the claim CLAIM_HASH: its votes, their numbers and the verdict.

    Votes are shown by a node's word. A verdict VERIFIED is reported only after its certificate was checked, any other
    one when a quorum of the nodes tells the same.

    Exit codes: 0 the claim is verified and prevails, 1 it does not, 4 there is no verdict yet, or none that a quorum of
    the nodes tells alike.
    """
    trust = options.load_policy(policy_path)
    digest = options.hash_of(claim_hash, what="CLAIM_HASH")

    async def run() -> "tuple[ClaimState, Recorded | None]":
        from client.continuity import check_latest
        from client.memory import Memory
        from client.verdicts import ask_state, fetch_certificate, older_publication

        memory = Memory.default()
        async with options.ledger(trust, patience_s) as api:
            await check_latest(api, memory)
            state = await ask_state(api, digest)
            if state.prevails:
                await fetch_certificate(api, memory, digest)
            return state, await older_publication(api, memory, state) if state.confirmed else None

    return _report(*asyncio.run(run()))


def _report(state: "ClaimState", older: "Recorded | None") -> Report:
    from client.stories import older_publication_text, receipt_document

    text = [f"claim  {state.claim}", f"model  {state.model_sha256}", "", state.votes_table(), "", state.explain()]
    found: dict[str, object] = {
        "explanation": state.explain(),
        "confirmed": state.confirmed,
        "older_publication": None,
    }
    if older is not None:
        text.append(older_publication_text(older.verified))
        found["older_publication"] = receipt_document(older.verified)
    return Report(document=state.document | found, text="\n".join(text), exit_code=state.exit_code)
