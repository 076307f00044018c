"""Promises: `wmreg search` shows only entries that were checked, asks all nodes, and says who did not answer."""

import asyncio
import hashlib
import json
from pathlib import Path

import pytest
from fakes import public_key
from nodeset import NodeSet, publication

from client.api import open_ledger
from client.keystore import load_signing_key
from client.searching import Query, search
from client.transport import Timing


@pytest.fixture
def find(wmreg, ledger):
    """Search the ledger."""
    return lambda *words: wmreg("search", *words, "--policy", ledger.policy_path)


def test_entries_are_found_by_hash_by_file_and_by_owner(ledger, find, alice, publish, claim, stolen):
    published = publish(alice, "--json").document
    claim(alice, stolen, "--no-wait")
    digest, owner = published["message_hash"], load_signing_key(alice.key).public_key().public_bytes_raw().hex()

    by_hash = find(digest, "--json").document
    by_file = find(stolen, "--json").document
    by_owner = find(owner, "--owner", "--json").document

    assert [(e["index"], e["bears"]) for e in by_hash["entries"]] == [(1, ["message"]), (2, ["publication"])]
    assert by_file["hash"] == hashlib.sha256(stolen.read_bytes()).hexdigest()
    assert [(e["index"], e["bears"]) for e in by_file["entries"]] == [(2, ["model_sha256"])]
    assert [e["index"] for e in by_owner["entries"]] == [1, 2]
    assert find(owner).out.startswith("nothing found")
    assert len(by_hash["answered"]) == 3


def test_pages_follow_each_other(ledger, find, alice, publish, claim, stolen):
    digest = publish(alice, "--json").document["message_hash"]
    claim(alice, stolen, "--no-wait")

    first = find(digest, "--limit", 1, "--json").document
    second = find(digest, "--limit", 1, "--start", first["next"], "--json").document

    assert [[e["index"] for e in page["entries"]] for page in (first, second)] == [[1], [2]]
    assert (first["next"], second["next"]) == (2, None)
    assert "more: --start 2" in find(digest, "--limit", 1).out


def test_what_one_node_hides_another_shows(ledger, find, alice, publish):
    digest = publish(alice, "--json").document["message_hash"]
    ledger.nodes[0].answers["/v1/search"] = b'{"entries": [], "next": null}'

    found = find(digest, "--json").document

    assert [e["index"] for e in found["entries"]] == [1]
    assert found["wrong"] == []


@pytest.mark.parametrize("listed", ["unknown", "another", "another index"])
def test_a_node_that_lists_what_is_no_such_entry_is_named_and_not_believed(ledger, find, alice, publish, listed):
    digest = publish(alice, "--json").document["message_hash"]
    ledger.grow(1)
    other = ledger.hash_of(2)
    entry = {"unknown": (0, "ab" * 32), "another": (2, other), "another index": (0, digest)}[listed]
    answer = {"entries": [{"index": entry[0], "message_hash": entry[1]}], "next": None}
    ledger.nodes[1].answers["/v1/search"] = json.dumps(answer).encode()

    found = find(digest, "--json").document

    assert [e["index"] for e in found["entries"]] == [1]
    assert found["wrong"] == [ledger.nodes[1].url]
    assert f"WRONG: {ledger.nodes[1].url}" in find(digest).out


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"entries": [{"index": "1"}], "next": null}', b"\xff"])
def test_a_node_that_answers_nonsense_counts_as_silent(ledger, find, alice, publish, answer):
    digest = publish(alice, "--json").document["message_hash"]
    ledger.nodes[1].answers["/v1/search"] = answer
    ledger.nodes[2].down = True

    found = find(digest, "--json").document

    assert [e["index"] for e in found["entries"]] == [1]
    assert (found["answered"], set(found["silent"])) == (
        [ledger.nodes[0].url],
        {ledger.nodes[1].url, ledger.nodes[2].url},
    )


def test_without_an_answer_the_ledger_is_unavailable(ledger, find):
    for node in ledger.nodes:
        node.down = True

    assert find("0" * 64).code == 4


@pytest.mark.parametrize("words", [["zz"], ["A" * 64], ["no/such/file"], [""]])
def test_what_is_neither_a_hash_nor_a_file_is_a_mistake_of_usage(ledger, find, words):
    assert find(*words).code == 2
    assert find(*words, "--owner").code == 2


def test_real_nodes_answer_searches_that_hold(tmp_path: Path):
    async def run() -> None:
        async with NodeSet(tmp_path / "ledger") as nodes:
            await nodes.serve()
            async with open_ledger(nodes.trust, Timing(patience_s=5)) as api:
                for number in range(3):
                    await api.submit(publication(number=number))
                query = Query(value=public_key("alice"), is_owner=True, limit=2)
                found = await search(api, query)
                assert [(hit.verified.index, hit.bears) for hit in found.hits] == [(1, ("signer",)), (2, ("signer",))]
                assert (found.following, found.wrong, found.silent) == (3, (), {})
                rest = await search(api, Query(value=public_key("alice"), is_owner=True, start=3))
                assert [hit.verified.index for hit in rest.hits] == [3]
                by_head = await search(api, Query(value=b"h" * 32, is_owner=False))
                assert [hit.bears for hit in by_head.hits] == [("head_commitment",)] * 3

    asyncio.run(run())
