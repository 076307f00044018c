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


@click.command("status")
@click.argument("claim_hash")
@options.policy
@options.patience
@options.as_json
def command(claim_hash: str, policy_path: Path, patience_s: float) -> Report:
    """Show the claim CLAIM_HASH: its votes, their numbers and the verdict.

    Votes are shown by a node's word. A verdict VERIFIED is reported only after its certificate was checked.
    """
    from client.claim_state import ClaimState

    trust = options.load_policy(policy_path)
    digest = options.hash_of(claim_hash)

    async def run() -> tuple[ClaimState, "Recorded | None"]:
        from client.claiming import older_publication
        from client.memory import Memory, check_latest

        async with options.ledger(trust, patience_s) as api:
            await check_latest(api, Memory.default())
            state = ClaimState.read(await api.claim(digest))
            if state.prevails:
                await api.certificate(digest)
            return state, await older_publication(api, state)

    return _report(*asyncio.run(run()))


def _report(state: "ClaimState", older: "Recorded | None") -> Report:
    from client.stories import older_publication_text, receipt_document

    text = [f"claim  {state.claim}", f"model  {state.model_sha256}", "", state.votes_table(), "", state.explain()]
    found: dict[str, object] = {"explanation": state.explain(), "older_publication": None}
    if older is not None:
        text.append(older_publication_text(older.verified))
        found["older_publication"] = receipt_document(older.verified)
    return Report(document=state.document | found, text="\n".join(text))
