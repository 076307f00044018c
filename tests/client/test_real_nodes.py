"""Promises: what real nodes answer passes the client's strict readers; claims, pages and health as they truly are."""

import asyncio
from pathlib import Path

from fakes import good_measurement
from nodeset import NodeSet, claim, publication, sealed, vote_message

from client.api import Api, open_ledger
from client.health import survey
from client.memory import Memory
from client.transport import Timing
from client.verdicts import ask_state, fetch_certificate, older_publication


async def vote(nodes: NodeSet, digest: bytes) -> None:
    """Let two nodes, a quorum, verify a claim."""
    message = vote_message(nodes, digest, measurement=good_measurement())
    for node in nodes.nodes[:2]:
        envelope = sealed(message, node.identity.signing)
        await node.ledger.submit(envelope, timeout_s=5)


async def submit(api: Api, owner: str) -> bytes:
    """Publish and claim; the claim's hash."""
    published = publication(owner)
    await api.submit(published)
    return (await api.submit(claim(published, owner))).verified.signed.hash


def test_two_competing_claims_are_followed_to_their_verdicts(tmp_path: Path):
    async def follow() -> None:
        memory = Memory(tmp_path / "memory")
        async with NodeSet(tmp_path / "ledger") as nodes:
            await nodes.serve()
            async with open_ledger(nodes.trust, Timing(patience_s=5)) as api:
                alice, pirate = await submit(api, "alice"), await submit(api, "pirate")

                opened = await ask_state(api, alice)
                assert (opened.outcome, opened.votes, opened.confirmed) == (None, (), True)

                await vote(nodes, pirate)
                await vote(nodes, alice)
                won, lost = await ask_state(api, alice), await ask_state(api, pirate)
                assert won.prevails
                assert [node.matched for node in won.votes] == [600, 600]
                _, story = await fetch_certificate(api, memory, alice)
                assert story.claim_hash == alice

                assert (lost.prevails, lost.confirmed, lost.exit_code) == (False, True, 1)
                older = await older_publication(api, memory, lost)
                assert older is not None
                assert older.verified.index == 1

                page = await api.entries(start=0, limit=3)
                assert ([line.kind for line in page.lines], page.following) == (["genesis", "publish", "claim"], 3)
                assert await api.find(alice) is not None
                assert await api.find(bytes(32)) is None
                assert [node.agrees for node in (await survey(api)).nodes] == [True, True, True]

    asyncio.run(follow())
