"""Searches answer from an index of the whole log, page by page, or say that they cannot yet."""

import json
from pathlib import Path
from typing import Any

from fakes import public_key
from nodeset import NodeSet, claim, publication

from node.api import search as search_module
from registry.envelope import message_hash


async def ask(nodes: NodeSet, query: str, *, status: int = 200) -> Any:
    async with nodes.session.get(f"{nodes.nodes[0].url}/v1/search?{query}") as answer:
        body = await answer.read()
        assert answer.status == status, body
        return json.loads(body)


async def test_an_entry_is_found_by_hash_and_by_owner_as_soon_as_it_is_applied(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        published = publication()
        for envelope in (published, claim(published)):
            await nodes.nodes[0].ledger.submit(envelope, timeout_s=5)
            assert (await ask(nodes, f"hash={message_hash(envelope).hex()}"))["entries"] != []
        found = await ask(nodes, f"hash={message_hash(published).hex()}")
        assert [(e["index"], e["kind"], e["bears"]) for e in found["entries"]] == [
            (1, "publish", ["message"]),
            (2, "claim", ["publication"]),
        ]
        assert (found["size"], found["next"]) == (3, None)
        assert found["entries"][0]["body"]["head_commitment"] == (b"h" * 32).hex()
        by_owner = await ask(nodes, f"owner={public_key('alice').hex()}")
        assert [e["index"] for e in by_owner["entries"]] == [1, 2]
        assert (await ask(nodes, f"hash={public_key('alice').hex()}"))["entries"] == []
        assert [e["index"] for e in (await ask(nodes, f"hash={'11' * 32}"))["entries"]] == [2]


async def test_a_search_is_paged(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        for number in range(5):
            await nodes.nodes[0].ledger.submit(publication(number=number), timeout_s=5)
        owner, pages, start = f"owner={public_key('alice').hex()}", [], 0
        while start is not None:
            page = await ask(nodes, f"{owner}&start={start}&limit=2")
            pages.append([entry["index"] for entry in page["entries"]])
            start = page["next"]
        assert pages == [[1, 2], [3, 4], [5]]
        assert (await ask(nodes, f"{owner}&start=99999999999999999999", status=400))["error"]["code"] == "malformed"
        assert (await ask(nodes, f"{owner}&start={2**64 - 1}"))["entries"] == []


async def test_what_is_no_search_is_refused(tmp_path: Path):
    value = "0" * 64
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        for query in ("", f"hash={value}&owner={value}", "hash=", "hash=zz", f"owner={'A' * 64}", f"hash={value[1:]}"):
            assert (await ask(nodes, query, status=400))["error"]["code"] == "malformed"
        assert (await ask(nodes, f"hash={value}&limit=0", status=400))["error"]["code"] == "malformed"


async def test_a_search_that_the_index_is_not_ready_for_comes_back_later(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(search_module, "INDEX_WAIT_S", 0.05)
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        index = nodes.nodes[0].services.index
        assert await index.reach(1, 30)
        right, index.add_batch = index.add_batch, lambda: 1
        await nodes.nodes[0].ledger.submit(publication(), timeout_s=5)
        assert (await ask(nodes, f"hash={'0' * 64}", status=503))["error"]["code"] == "indexing"
        index.add_batch = right
        assert await index.reach(2, 30)
        assert (await ask(nodes, f"hash={'0' * 64}"))["entries"] == []
