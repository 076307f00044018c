"""Promises: of each scheme and each claim the client says what is true of it, and not what is true of another."""

import itertools
from dataclasses import replace

import pytest
from fakes import LedgerMaker, counted, good_measurement

from client.bodies import body_document, body_text, field_of
from client.claim_state import REASONS, ClaimState, NodeVote, explained
from client.stories import certificate_document, certificate_text, message_line
from registry.certificate import verify_certificate
from registry.endpoint import endpoint_sha256
from registry.messages import Claim
from registry.policy import Thresholds
from registry.receipt import VerifiedReceipt, verify_receipt
from registry.schemes import STATISTICS
from registry.verdict import Measurement, Outcome, Statistic, judge

URL = "https://models.example/v2/models/digits"
SCHEMES = {statistic: scheme for scheme, statistic in STATISTICS.items()}
BLACK_BOX = (Statistic.CLASSES, Statistic.CALIBRATED, Statistic.INTEGRITY)


def claimed(maker: LedgerMaker, statistic: Statistic, *, is_endpoint: bool, sha256: bytes | None = None) -> bytes:
    message = maker.claim_message("alice", maker.publish("alice", scheme=SCHEMES[statistic]))
    if is_endpoint:
        named = {"model_pointer": f"endpoint+{URL}", "model_sha256": sha256 or endpoint_sha256(URL)}
        message = replace(message, **named)
    return maker.submit(maker.seal(message, "alice")).message_hash


def told(measurement: Measurement, *, is_endpoint: bool = False) -> tuple[str, dict[str, object]]:
    """The certificate of a claim that two nodes measured so and one not, as a text and for programs."""
    maker = LedgerMaker()
    claim = claimed(maker, measurement.statistic, is_endpoint=is_endpoint)
    outcome, reason = judge(measurement, Thresholds())
    for node in (1, 2):
        maker.vote(node, claim, outcome=outcome, reason=reason, measurement=measurement)
    maker.vote(3, claim, outcome=Outcome.UNVERIFIABLE, reason="unreachable")
    story = verify_certificate(maker.certificate(claim).encode(), maker.trust)
    return certificate_text(story), certificate_document(story)


def numbers(statistic: Statistic, matched: int = 100) -> Measurement:
    return good_measurement() if statistic is Statistic.BRANCH else counted(statistic, matched)


@pytest.mark.parametrize(
    ("statistic", "is_endpoint"),
    [
        (statistic, is_endpoint)
        for statistic, is_endpoint in itertools.product(Statistic, (False, True))
        if statistic in BLACK_BOX or not is_endpoint
    ],
)
def test_what_a_certificate_does_not_say_is_told_where_it_is_true_and_nowhere_else(statistic, is_endpoint):
    text, _ = told(numbers(statistic), is_endpoint=is_endpoint)
    is_integrity = statistic is Statistic.INTEGRITY

    assert ("does not prove that the owner trained the model" in text) != is_integrity
    assert ("does not prove whose the model is" in text) == is_integrity
    assert ("The claimant chose the triggers. INTACT speaks only of what these see" in text) == is_integrity
    assert ("measured on models that the claimant declared" in text) == (statistic is Statistic.CALIBRATED)
    assert ("not that it still serves that model" in text) == is_endpoint
    assert "TAMPERED" not in text
    assert text.count("trust policy that it was checked against") == 1


def test_tampered_may_be_a_model_that_never_was_his():
    text, _ = told(counted(Statistic.INTEGRITY, 99))

    assert text.startswith("TAMPERED: the model with SHA-256")
    assert "TAMPERED may mean a model that never was his" in text
    assert "INTACT" not in text
    assert "carries" not in text


@pytest.mark.parametrize("statistic", BLACK_BOX)
def test_an_endpoint_is_told_by_its_url_and_its_hash_is_no_models(statistic):
    text, document = told(numbers(statistic), is_endpoint=True)

    assert text.splitlines()[0].endswith(f": the endpoint {URL}, as it answered when the nodes asked,")
    assert endpoint_sha256(URL).hex() not in text
    assert "carries" not in text
    assert "another owner's claim on this endpoint" in text.lower()
    assert (document["model_sha256"], document["endpoint"]) == (None, URL)
    assert document["endpoint_sha256"] == endpoint_sha256(URL).hex()


def test_a_file_is_told_by_its_hash():
    text, document = told(good_measurement())

    assert text.splitlines()[0] == f"VERIFIED: the model with SHA-256 {document['model_sha256']}"
    assert text.splitlines()[1].startswith("carries the mtlsign watermark of the owner")
    assert (document["endpoint"], document["endpoint_sha256"]) == (None, None)


@pytest.mark.parametrize("statistic", Statistic)
def test_a_p_value_is_told_of_each_count_that_chance_says_something_of(statistic):
    text, document = told(numbers(statistic))
    measured, _, unmeasured = document["votes"]

    assert (measured["p_value"] is None) == (statistic is Statistic.INTEGRITY)
    row = next(line for line in text.splitlines() if line.startswith("node-1")).split()
    assert row[4] == (measured["p_value"] or "-")
    assert unmeasured["p_value"] is None
    assert "0/0" not in text


def receipt_of(*, is_endpoint: bool) -> VerifiedReceipt:
    maker = LedgerMaker()
    claim = claimed(maker, Statistic.CLASSES, is_endpoint=is_endpoint)
    return verify_receipt(maker.receipt(claim), maker.trust)


def test_the_fields_of_a_claim_on_an_endpoint_have_names_that_are_true():
    verified = receipt_of(is_endpoint=True)
    message = verified.signed.message
    assert isinstance(message, Claim)
    lines = body_text(body_document(message)).splitlines()

    assert f"endpoint  {URL}" in lines
    assert f"endpoint_sha256  {endpoint_sha256(URL).hex()}" in lines
    assert not [line for line in lines if line.startswith("model_")]
    assert field_of("model_sha256", message) == "endpoint_sha256"
    assert field_of("evidence_sha256", message) == "evidence_sha256"
    assert f"a claim on the endpoint {URL} by" in message_line(verified)


def test_those_of_a_claim_on_a_file_are_the_ledgers():
    verified = receipt_of(is_endpoint=False)
    message = verified.signed.message
    assert isinstance(message, Claim)
    names = [line.split()[0] for line in body_text(body_document(message)).splitlines()]

    assert {"model_pointer", "model_sha256"} <= set(names)
    assert field_of("model_sha256", message) == "model_sha256"
    assert f"a claim on the model {message.model_sha256.hex()} by" in message_line(verified)


def state(**changes: object) -> ClaimState:
    """What a node says of a claim on an endpoint."""
    said = {
        "claim": "11" * 32,
        "model_sha256": endpoint_sha256(URL).hex(),
        "endpoint": URL,
        "publication": "22" * 32,
        "publication_index": 1,
        "outcome": "VERIFIED",
        "reason": "matched",
        "votes": [],
        "superseded_by": None,
        "superseding": None,
    }
    return ClaimState.read(said | changes, bytes.fromhex("11" * 32))


def test_the_state_of_a_claim_names_what_it_is_on():
    assert state().suspect == f"endpoint  {URL}"
    assert "of which the claim has not the hash" in state(model_sha256="33" * 32).suspect
    assert state(endpoint=None).suspect == f"model  {endpoint_sha256(URL).hex()}"
    assert (
        ClaimState.read({n: v for n, v in state().document.items() if n != "endpoint"}, b"\x11" * 32).endpoint is None
    )


def test_a_verdict_on_an_endpoint_is_none_on_the_model_behind_it():
    refuted = {"outcome": "REFUTED", "reason": "below_threshold"}
    rival = {"claim": "44" * 32, "publication": "55" * 32, "publication_index": 2, "owner": "66" * 32}

    assert state(**refuted).explain().endswith("the endpoint did not show it, whatever model is behind it")
    assert state(**refuted, endpoint=None).explain().endswith("the model does not carry this mark")
    assert "verified at this endpoint too" in state(rivals=[rival]).explain()
    assert "verified in this model too" in state(rivals=[rival], endpoint=None).explain()
    assert explained(Outcome.INTACT, "matched", is_endpoint=True).startswith("the endpoint answers every trigger")
    assert explained(Outcome.INTACT, "matched").startswith("the model answers every trigger")


def test_a_nodes_p_value_of_integrity_is_not_shown():
    vote = {"member": "node-1", "outcome": "INTACT", "reason": "matched", "matched": 9, "total": 9, "p_value": "1e-9"}

    assert NodeVote.read(vote | {"statistic": "integrity"}).row()[4] is None
    assert NodeVote.read(vote | {"statistic": "classes"}).row()[4] == "1e-9"


def test_reasons_speak_of_a_head_or_a_base_only_together_with_what_it_may_be_instead():
    heads = {reason: words for reason, words in REASONS.items() if "head" in words}
    bases = {reason: words for reason, words in REASONS.items() if "base" in words}

    assert list(heads) == ["head_mismatch"]
    assert "(head or payload)" in heads["head_mismatch"]
    assert set(bases) == {"shared_ancestor", "base_unreachable", "base_unusable"}
    assert all("a declared model (base or null)" in words for words in bases.values())
