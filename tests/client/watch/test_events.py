"""Promises: a claim on an endpoint is told as such, by its URL; the hash of a URL is not called a model's."""

from dataclasses import replace

import pytest
from fakes import LedgerMaker

from client.watch.events import entry_event, verdict_event
from registry.checkpoint import Checkpoint
from registry.claims import ClaimState, committed_by, count_votes
from registry.endpoint import endpoint_pointer, endpoint_sha256
from registry.entry import Placed
from registry.envelope import unseal

URL = "https://api.example/v2/models/it"
PROOF = Checkpoint(origin="test.example/ledger", size=3, root=bytes(32))


@pytest.fixture
def maker() -> LedgerMaker:
    return LedgerMaker()


@pytest.fixture
def state(maker: LedgerMaker) -> ClaimState:
    """A claim without votes on a model's file."""
    publication = maker.publish("alice")
    claimed = maker.ledger.claim_state(maker.claim("alice", publication))
    assert claimed is not None
    return claimed


def on_endpoint(maker: LedgerMaker, state: ClaimState) -> ClaimState:
    message = replace(state.message, model_pointer=endpoint_pointer(URL), model_sha256=endpoint_sha256(URL))
    signed = unseal(maker.seal(message, "alice"), origin=maker.origin)
    placed = Placed(index=state.claim.index, recorded_s=state.claim.recorded_s, signed=signed)
    return replace(state, claim=placed, committed=committed_by(message, state.publication.signed))


def test_a_claim_is_told_by_what_it_is_on(maker, state):
    served = on_endpoint(maker, state)

    assert f"the model {state.message.model_sha256.hex()}" in entry_event(state.claim, (), PROOF).text
    text = entry_event(served.claim, (), PROOF).text
    assert f"claims the endpoint {URL}, by the publication" in text
    assert served.message.model_sha256.hex() not in text


def test_a_verdict_names_the_endpoint_whose_urls_hash_it_bears(maker, state):
    served = on_endpoint(maker, state)

    of_file = verdict_event(state, count_votes(state), state.claim, (), PROOF)
    of_endpoint = verdict_event(served, count_votes(served), served.claim, (), PROOF)

    assert of_file.document()["endpoint"] is None
    assert of_endpoint.document()["endpoint"] == URL
    assert of_endpoint.document()["model_sha256"] == endpoint_sha256(URL).hex()
    assert f"on the endpoint {URL}" in of_endpoint.text
