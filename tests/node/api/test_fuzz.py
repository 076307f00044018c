"""Whatever is asked of the API, its answer is one that its description foresees, and never a fault of the node.

Schemathesis makes requests that fit the description and requests that do not, from the description alone, and sends
them to a real node in this process. Streams have no end, so test_events.py looks at those.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest
import schemathesis
from fakes import good_measurement
from hypothesis import HealthCheck, settings
from nodeset import NodeSet, claim, publication, sealed, vote_message
from schemathesis.specs.openapi.checks import positive_data_acceptance

from node.api.openapi import DOCUMENT
from registry.envelope import message_hash

SCHEMA = schemathesis.openapi.from_dict(DOCUMENT).exclude(path="/v1/events")
# A schema cannot say that a signature has to hold, or that only full tiles go without their width.
UNDECIDABLE = [positive_data_acceptance]


class ServedNode:
    """A node with a verified claim, in a thread of its own; nobody who asks it is let wait."""

    def __init__(self, directory: Path) -> None:
        self._nodes, self._ready = NodeSet(directory, nodes=1), threading.Event()
        self.url = self.claim = ""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> "ServedNode":
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self._nodes as nodes:
            await nodes.serve()
            node = nodes.nodes[0]
            published = publication()  # not before: a message is of its time
            claimed = claim(published)
            for envelope in (published, claimed):
                await node.ledger.submit(envelope, timeout_s=30)
            vote = vote_message(nodes, message_hash(claimed), measurement=good_measurement())
            await node.ledger.submit(sealed(vote, node.identity.signing), timeout_s=30)
            self.url, self.claim = node.url, message_hash(claimed).hex()
            self._ready.set()
            await self._stop.wait()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedNode]:
    with ExitStack() as stack:
        for module in ("log", "entries"):
            stack.enter_context(mock.patch(f"node.api.{module}.WAIT_S_MAX", 0))
        yield stack.enter_context(ServedNode(tmp_path_factory.mktemp("fuzz") / "ledger"))


@pytest.mark.slow
@SCHEMA.parametrize()
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_foreseen_and_none_is_a_fault(case: schemathesis.Case, served: ServedNode):
    if str(case.path_parameters.get("hash", "")).startswith("00"):
        case.path_parameters["hash"] = served.claim  # or hardly any request would find something
    response = case.call(base_url=served.url)
    case.validate_response(response, excluded_checks=UNDECIDABLE)
    assert response.status_code != 500
