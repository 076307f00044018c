"""Promises: a file is stored with a quorum before a claim is made, and no single node can hold that up."""

import asyncio
import time

import pytest

from client.api import open_ledger
from client.keystore import load_signing_key
from client.transport import Timing
from client.uploads import blob_of, upload
from registry.errors import QuorumError, RefusedError


def store(ledger, party, patience_s=0.5):
    async def run():
        async with open_ledger(ledger.trust, Timing(patience_s=patience_s, attempt_timeout_s=60)) as api:
            return await upload(api, blob_of(party.model), load_signing_key(party.key))

    return asyncio.run(run())


def test_every_node_that_answers_gets_the_file(ledger, alice):
    assert store(ledger, alice) == tuple(node.url for node in ledger.nodes)
    assert all(list(node.blobs.values()) == [alice.model.read_bytes()] for node in ledger.nodes)


def test_a_node_that_never_answers_is_not_waited_for(ledger, alice, monkeypatch):
    monkeypatch.setattr("client.uploads.GRACE_S", 0.1)
    ledger.nodes[0].hangs_on = "PUT"
    begun_s = time.monotonic()

    stored = store(ledger, alice)

    assert stored == tuple(node.url for node in ledger.nodes[1:])
    assert time.monotonic() - begun_s < 10


def test_a_node_that_is_down_costs_no_grace(ledger, alice):
    ledger.nodes[0].down = True
    begun_s = time.monotonic()

    assert len(store(ledger, alice, patience_s=60)) == 2
    assert time.monotonic() - begun_s < 5


def test_nodes_that_come_back_within_the_patience_get_the_file(ledger, alice):
    for node in ledger.nodes:
        node.lose_request = 3

    assert len(store(ledger, alice, patience_s=30)) >= 2


def test_fewer_nodes_than_a_quorum_are_too_few(ledger, alice):
    ledger.nodes[0].down = ledger.nodes[1].down = True

    with pytest.raises(QuorumError, match="stored by 1 nodes"):
        store(ledger, alice)


def test_a_refusal_by_a_quorum_ends_it_at_once(ledger, alice):
    for node in ledger.nodes[:2]:
        node.refusals["PUT"] = (422, "quota")
    begun_s = time.monotonic()

    with pytest.raises(RefusedError) as raised:
        store(ledger, alice, patience_s=60)

    assert raised.value.code == "quota"
    assert time.monotonic() - begun_s < 5


def test_a_redirection_is_not_followed(ledger, alice):
    for node in ledger.nodes:
        node.redirects_to = "http://127.0.0.1:9/elsewhere"

    with pytest.raises(RefusedError, match="307"):
        store(ledger, alice)
