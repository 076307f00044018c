"""A node that is behind does not deny what is recorded; if it cannot find out, it says so."""

import asyncio
import dataclasses
from pathlib import Path

import aiohttp
import pytest
from nodeset import NodeSet, publication

from node.api import make_app
from registry.envelope import message_hash


async def _ask(directory: Path, *, catches_up: bool) -> tuple[int, str | None]:
    """Ask a node for an entry that it applies only once it is made to catch up."""
    async with NodeSet(directory / "ledger") as nodes:
        behind, envelope = nodes.nodes[0], publication()
        nodes.order.ledgers = [node.ledger for node in nodes.nodes[1:]]
        missed = nodes.order.proposed

        async def barrier(_timeout_s: float) -> bool:
            if catches_up:
                behind.ledger.store.begin()
                behind.ledger.store.apply(1, missed[0])
                behind.ledger.store.commit()
            return catches_up

        await nodes.nodes[1].ledger.submit(envelope, timeout_s=30)
        services = dataclasses.replace(behind.services, read_barrier=barrier)
        await nodes.serve_app(behind, make_app(services))
        url = f"{behind.url}/v1/entries/{message_hash(envelope).hex()}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, answer.headers.get("Wmreg-May-Be-Behind")


@pytest.mark.parametrize(("catches_up", "expected"), [(True, (200, None)), (False, (404, "1"))])
def test_a_node_makes_sure_that_it_is_not_behind_before_it_denies_an_entry(
    tmp_path: Path, catches_up: bool, expected: tuple[int, str | None]
):
    assert asyncio.run(_ask(tmp_path, catches_up=catches_up)) == expected
