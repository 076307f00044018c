"""What a node learns of later policies: whatever a peer answers, it is learnt from the others or not at all."""

from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from nodeset import NodeSet

from node.membership import Membership, Standing

ANSWERS = {
    "nested too deeply": b'{"policies": ' + b"[" * 100_000,
    "no JSON": b"<html>",
    "no text": b"\xff\xfe",
    "no list": b'{"policies": 5}',
    "no envelope": b'{"policies": [{"envelope": "AAAA"}]}',
    "no base64": b'{"policies": [{"envelope": "\xc3\xa9"}]}',
    "too large": b" " * (2 * 2**20),
    "nothing": b"",
}


@pytest.mark.parametrize("what", ANSWERS)
async def test_a_peer_that_answers_nonsense_teaches_nothing_and_stops_nothing(tmp_path: Path, what: str):
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=ANSWERS[what], content_type="application/json")

    app = web.Application()
    app.add_routes([web.get("/v1/policies", answer)])
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes, TestServer(app) as server:
        node = nodes.nodes[0]
        membership = Membership(node.name, node.ledger.store)
        before = membership.latest_policy
        await membership.ask(nodes.session, [str(server.make_url("/")).rstrip("/")])
        assert membership.latest_policy is before
        assert membership.standing is Standing.MEMBER
