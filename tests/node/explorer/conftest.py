"""A node of a set of three with one of everything in its ledger, served in a thread: one for all tests of a run."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from nodeset import NodeSet
from showcase import Served, fill


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The node; its tests may read from it and nothing else."""
    ready, found = threading.Event(), []

    async def serve() -> None:
        stop = asyncio.Event()
        async with NodeSet(tmp_path_factory.mktemp("showcase") / "ledger") as nodes:
            await nodes.serve(with_explorer=True)
            shown = await fill(nodes)
            await nodes.nodes[0].services.gatherer.quorum_note(nodes.nodes[0].ledger.store.size, timeout_s=20)
            found.extend([Served(nodes.nodes[0].url, shown), asyncio.get_running_loop(), stop])
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(120)
    yield found[0]
    found[1].call_soon_threadsafe(found[2].set)
    thread.join()
