"""Nodes that vote in this process, and what they voted."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from nodeset import NodeParts, NodeSet

from registry.verdict import Outcome


async def until(condition: Callable[[], object], *, timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def voting(nodes: NodeSet, *numbers: int) -> AsyncIterator[None]:
    """Let these nodes vote."""
    tasks = [asyncio.create_task(nodes.nodes[number].services.voter.run()) for number in numbers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def upload(node: NodeParts, content: bytes) -> bytes:
    digest = hashlib.sha256(content).digest()
    await node.services.blobs.add(digest, chunks(content), bytes_max=1_000_000)
    return digest


def votes(nodes: NodeSet, digest: bytes) -> dict[str, tuple[Outcome, str]]:
    state = nodes.nodes[0].ledger.store.claim_state(digest)
    return {name: (placed.signed.message.outcome, placed.signed.message.reason) for name, placed in state.votes.items()}
