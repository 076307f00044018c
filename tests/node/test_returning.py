"""A node takes part again only when a majority has nothing of it that it does not remember; silence is no answer."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from nodeset import NodeParts, NodeSet, publication

from node.admission import check_memory
from node.errors import InconsistentStateError
from node.init import JOURNAL_FILE
from node.membership import Membership
from node.returning import Returning
from registry.checkpoint import Checkpoint


@contextlib.asynccontextmanager
async def starting(node: NodeParts, session: aiohttp.ClientSession, *, remembers: int) -> AsyncIterator[asyncio.Task]:
    """The start of a node that has run before, up to the check of its memory."""
    (node.config.state_directory / JOURNAL_FILE).touch()
    membership = Membership(node.name, node.ledger.store)
    returning = Returning(member=membership.member, origin=node.ledger.store.origin, signed_size=lambda: remembers)
    task = asyncio.create_task(check_memory(node.config, membership, returning, session, alarms=node.services.alarms))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def waits(caplog: pytest.LogCaptureFixture, task: asyncio.Task) -> None:
    """Until it has asked, and waits for more answers."""
    while "waiting for a majority to answer" not in caplog.messages:
        assert not task.done()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def seen_by_another(tmp_path: Path) -> AsyncIterator[tuple[NodeSet, int]]:
    """Three nodes, of which the second has seen a checkpoint of this size with the first one's signatures."""
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        witness, seen = nodes.nodes[1], None
        for number in itertools.count():
            done = await witness.ledger.submit(publication(number=number), timeout_s=20)
            await witness.services.gatherer.quorum_note(done.index + 1, timeout_s=20)
            if (seen := witness.services.gatherer.seen_signed_by("node-1")) is not None:
                break
        yield nodes, Checkpoint.parse(seen.text).size


async def test_a_node_from_an_older_copy_is_refused_although_it_is_the_first_to_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    async with seen_by_another(tmp_path) as (nodes, size):
        await nodes.stop_serving()
        async with starting(nodes.nodes[0], nodes.session, remembers=size - 1) as task:
            await waits(caplog, task)
            await nodes.serve(1)
            with pytest.raises(InconsistentStateError, match="put back to an older copy"):
                await asyncio.wait_for(task, 20)


async def test_a_node_that_remembers_starts_as_soon_as_a_majority_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    async with seen_by_another(tmp_path) as (nodes, _):
        await nodes.stop_serving()
        size = nodes.nodes[1].ledger.store.size  # signatures that were on their way may have come
        async with starting(nodes.nodes[0], nodes.session, remembers=size) as task:
            await waits(caplog, task)
            assert "memory" in nodes.nodes[0].services.alarms
            await nodes.serve(1)
            await asyncio.wait_for(task, 20)
            assert nodes.nodes[0].services.alarms == {}
