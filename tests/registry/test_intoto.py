"""A certificate as an in-toto statement: the schema is theirs, the content the story's, the bytes always the same."""

import hashlib
import json
from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest
from fakes import ORIGIN, LedgerMaker, public_key
from hypothesis import example, given
from hypothesis import strategies as st

from registry.certificate import Attested, verify_certificate
from registry.endpoint import endpoint_sha256
from registry.errors import RefusedError
from registry.intoto import TIME_MAX_S, rfc3339, statement

MAKER = LedgerMaker()
RAW = MAKER.certificate(MAKER.verified_claim("alice")).encode()
STORY = verify_certificate(RAW, MAKER.trust)
CONTENT = json.loads(statement(STORY, RAW))
TOLD = CONTENT["predicate"]["story"]


def test_the_statement_has_the_fields_of_the_specification_and_no_others():
    assert set(CONTENT) == {"_type", "subject", "predicateType", "predicate"}
    assert CONTENT["_type"] == "https://in-toto.io/Statement/v1"
    assert CONTENT["predicateType"] == "https://wmreg.example/certificate/v1"
    assert CONTENT["predicateType"] == CONTENT["predicateType"].lower()


def test_the_subject_is_the_model_by_its_digest():
    assert CONTENT["subject"] == [{"digest": {"sha256": hashlib.sha256(b"model").hexdigest()}}]


def test_of_a_claim_on_an_endpoint_the_subject_is_its_url_and_no_file():
    url = "https://models.example/v2/models/digits"
    asked = replace(STORY, endpoint=url, model_sha256=endpoint_sha256(url))
    content = json.loads(statement(asked, RAW))
    assert content["subject"] == [{"uri": url, "digest": {"wmreg_endpoint": endpoint_sha256(url).hex()}}]
    told = content["predicate"]["story"]
    assert (told["endpoint"], told["endpointSha256"]) == (url, endpoint_sha256(url).hex())
    assert "modelSha256" not in told


def test_the_predicate_names_the_certificate_that_proves_it():
    assert CONTENT["predicate"]["certificate"] == {"digest": {"sha256": hashlib.sha256(RAW).hexdigest()}}
    assert CONTENT["predicate"]["outcome"] == "VERIFIED"


def test_the_predicate_tells_the_whole_story():
    known = [field.name for field in fields(STORY) if getattr(STORY, field.name) is not None]
    words = {name.replace("_", "").lower() for name in known}
    assert {name.lower() for name in TOLD} == words
    assert not [name for name in TOLD if "_" in name or not name[0].islower()]
    assert (TOLD["origin"], TOLD["owner"]) == (ORIGIN, public_key("alice").hex())
    assert (TOLD["publicationIndex"], TOLD["claimIndex"], TOLD["quorum"], TOLD["members"]) == (1, 2, 2, 3)
    assert TOLD["modelSha256"] == CONTENT["subject"][0]["digest"]["sha256"]
    assert TOLD["statistics"] == ["branch"]
    assert TOLD["witnesses"] == ["node-1", "node-2", "node-3"]
    assert [(vote["member"], vote["outcome"], vote["matched"], vote["pValue"]) for vote in TOLD["votes"]] == [
        (vote.member, "VERIFIED", 600, vote.p_value) for vote in STORY.votes
    ]


def test_the_attested_times_are_in_rfc_3339():
    bounds = [datetime.fromisoformat(TOLD["published"][name]).timestamp() for name in ("notBefore", "notAfter")]
    assert bounds == [STORY.published.not_before_s, STORY.published.not_after_s]


def test_what_is_not_known_is_left_out():
    unbounded = replace(STORY, published=Attested(None, STORY.published.not_after_s))
    assert set(json.loads(statement(unbounded, RAW))["predicate"]["story"]["published"]) == {"notAfter"}


def test_the_statement_has_one_spelling():
    raw = statement(STORY, RAW)
    assert raw == statement(verify_certificate(RAW, MAKER.trust), RAW)
    assert (json.dumps(json.loads(raw), sort_keys=True, indent=1) + "\n").encode() == raw
    assert raw.isascii()


def test_another_certificate_makes_another_statement():
    assert statement(STORY, RAW + b" ") != statement(STORY, RAW)


def test_a_time_that_rfc_3339_cannot_spell_is_refused():
    late = replace(STORY, claimed=Attested(None, TIME_MAX_S + 1))
    with pytest.raises(RefusedError) as refused:
        statement(late, RAW)
    assert refused.value.code == "time_range"


def test_a_value_without_a_spelling_is_the_programs_mistake():
    with pytest.raises(TypeError, match="float"):
        statement(replace(STORY, quorum=0.5), RAW)


@given(st.integers(0, TIME_MAX_S))
@example(0)
@example(951_782_400)  # 2000-02-29
@example(4_107_542_400)  # 2100-03-01, after a February without a leap day
@example(TIME_MAX_S)
def test_times_are_spelled_as_the_standard_library_would(time_s):
    assert rfc3339(time_s) == datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize("time_s", [-1, TIME_MAX_S + 1, 2**63 - 1])
def test_times_out_of_range_are_refused(time_s):
    with pytest.raises(RefusedError):
        rfc3339(time_s)
