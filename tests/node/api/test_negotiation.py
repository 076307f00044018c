"""Whoever prefers msgpack gets what the JSON says; a file is the same bytes for everybody."""

import json
from pathlib import Path

import msgpack
import pytest
from fakes import good_measurement
from nodeset import NodeSet, claim, publication, sealed, vote_message

from node.api.negotiation import JSON, MSGPACK, preferred
from registry.envelope import message_hash


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("text/html, application/xhtml+xml;q=0.9, */*;q=0.8", JSON),
        (MSGPACK, MSGPACK),
        ("Application/MsgPack", "application/msgpack"),
        ("application/x-msgpack, */*;q=0.1", "application/x-msgpack"),
        (f"{MSGPACK}, {JSON}", MSGPACK),
        (f"{JSON}, {MSGPACK}", JSON),
        (f"{JSON};q=0.5, {MSGPACK};q=0.6", MSGPACK),
        (f"{JSON};q=0.5, {MSGPACK};q=0.4", JSON),
        (f"{MSGPACK};q=0", JSON),
        (f"{MSGPACK};q=much", JSON),
        (f"{MSGPACK};q=nan", JSON),
        (f"{MSGPACK};q=7", JSON),
        (",;,;q=1", JSON),
    ],
)
def test_msgpack_is_for_those_who_prefer_it(accept: str, expected: str):
    assert preferred(accept) == expected


async def test_answers_and_errors_say_the_same_in_msgpack_and_files_stay_as_they_are(tmp_path: Path):
    published = publication()
    claimed = claim(published)
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        node = nodes.nodes[0]
        for envelope in (published, claimed):
            await node.ledger.submit(envelope, timeout_s=20)
        digest = message_hash(claimed).hex()
        vote = vote_message(nodes, message_hash(claimed), measurement=good_measurement())
        await node.ledger.submit(sealed(vote, node.identity.signing), timeout_s=20)

        async def get(path: str, accept: str) -> tuple[int, str, bytes]:
            async with nodes.session.get(node.url + path, headers={"Accept": accept}) as answer:
                assert answer.headers.get("Vary") == (None if path in files else "Accept")
                return answer.status, answer.content_type, await answer.read()

        files = {f"/v1/certificates/{digest}", "/openapi.json"}
        for path in (f"/v1/entries/{digest}", f"/v1/claims/{digest}", "/v1/entries?limit=2", "/v1/entries/none", "/no"):
            status, kind, plain = await get(path, "*/*")
            assert kind == JSON
            packed = await get(path, MSGPACK)
            assert packed[:2] == (status, MSGPACK)
            assert msgpack.unpackb(packed[2]) == json.loads(plain)
        for path in sorted(files):
            assert await get(path, MSGPACK) == (200, JSON, (await get(path, "*/*"))[2])
