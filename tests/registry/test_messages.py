"""Envelopes: signed for one ledger and one kind, strict in every field."""

import pytest
from fakes import ORIGIN, START_S, LedgerMaker, policy, private_key
from hypothesis import given
from hypothesis import strategies as st

from registry import schema
from registry.encoding import decode, encode
from registry.envelope import message_hash, seal, unseal
from registry.errors import MalformedError, RefusedError
from registry.messages import Publication
from registry.policy import Policy

MAKER = LedgerMaker()
MESSAGE = Publication(
    time_s=START_S, scheme="mtlsign", key_commitment=bytes(32), head_commitment=bytes(32), info_commitment=bytes(32)
)
ENVELOPE = MAKER.seal(MESSAGE, "alice")


def changed(field, value, *, of=ENVELOPE):
    envelope = decode(of)
    target = envelope if field in envelope else envelope["body"]
    target[field] = value
    return encode(envelope)


@pytest.mark.parametrize("kind", ["publish", "claim", "vote"])
def test_every_kind_survives_its_envelope(kind):
    claim = MAKER.claim_message("alice", bytes(32))
    message = {"publish": MESSAGE, "claim": claim, "vote": MAKER.vote_message(bytes(32))}[kind]
    signed = unseal(MAKER.seal(message, "alice"), origin=ORIGIN)
    assert signed.message == message
    assert kind == signed.message.KIND


def test_a_message_is_named_by_its_envelope():
    assert unseal(ENVELOPE, origin=ORIGIN).hash == message_hash(ENVELOPE)


def test_a_signature_means_nothing_in_another_ledger_or_as_another_kind():
    with pytest.raises(RefusedError):
        unseal(ENVELOPE, origin="elsewhere.org/wmreg")
    vote = MAKER.seal(MAKER.vote_message(bytes(32)), "alice")
    with pytest.raises((RefusedError, MalformedError)):
        unseal(changed("kind", "claim", of=vote), origin=ORIGIN)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("kind", "bribe"),
        ("kind", 7),
        ("body", []),
        ("signatures", []),
        ("time_s", -1),
        ("time_s", "now"),
        ("time_s", True),
        ("scheme", ""),
        ("scheme", "a\nb"),
        ("scheme", "x" * 65),
        ("key_commitment", bytes(31)),
        ("key_commitment", "0" * 32),
        ("model_commitment", b""),
        ("extra", 1),
    ],
)
def test_a_wrong_field_is_named(field, value):
    with pytest.raises(MalformedError):
        unseal(changed(field, value), origin=ORIGIN)


@given(st.integers(0, len(ENVELOPE) - 1), st.integers(1, 255))
def test_no_changed_byte_is_unsealed(position, change):
    forged = bytearray(ENVELOPE)
    forged[position] ^= change
    with pytest.raises((MalformedError, RefusedError)):
        unseal(bytes(forged), origin=ORIGIN)


def test_a_publication_has_one_signer():
    keys = [private_key("alice"), private_key("bob")]
    with pytest.raises(MalformedError, match="one signer"):
        unseal(seal(MESSAGE, origin=ORIGIN, private_keys=keys), origin=ORIGIN)
    with pytest.raises(ValueError, match="needs a signer"):
        seal(MESSAGE, origin=ORIGIN, private_keys=[])


def test_a_signer_who_signs_twice_is_refused():
    pair = decode(ENVELOPE)["signatures"][0]
    with pytest.raises(MalformedError, match="twice"):
        unseal(changed("signatures", [pair, pair]), origin=ORIGIN)


def test_a_message_that_is_too_large_is_not_sealed():
    claim = MAKER.claim_message("alice", bytes(32))
    with pytest.raises(ValueError, match="bytes"):
        seal(
            type(claim)(**{f: getattr(claim, f) for f in claim.__slots__} | {"model_pointer": "x" * 70_000}),
            origin=ORIGIN,
            private_keys=[private_key("alice")],
        )


def test_a_policy_survives_its_encoding():
    assert Policy.from_value(policy().to_value()) == policy()


@pytest.mark.parametrize(
    "change",
    [
        {"quorum": 1},
        {"quorum": 4},
        {"members": []},
        {"time_skew_s": 0},
        {"thresholds": {}},
    ],
)
def test_a_policy_that_cannot_work_is_malformed(change):
    with pytest.raises(MalformedError):
        Policy.from_value(policy().to_value() | change)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda members: members[::-1],
        lambda members: [members[0], members[0] | {"name": "node-9"}],
        lambda members: [members[0] | {"name": "node 1"}, members[1]],
        lambda members: [members[0] | {"name": "a/b"}, members[1]],
        lambda members: [members[0], members[1] | {"name": "nodes"}],
        lambda members: [members[0], members[1] | {"name": "none"}],
        lambda members: [members[0] | {"note_key": members[0]["signing_key"]}, members[1]],
        lambda members: [members[0] | {"raft_port": 0}, members[1]],
        lambda members: [members[0] | {"tls_certificates": []}, members[1]],
        lambda members: [members[0], members[1] | {"tls_certificates": members[0]["tls_certificates"]}],
    ],
)
def test_members_that_share_an_identity_or_break_a_limit_are_malformed(spoil):
    value = policy(1, 2).to_value()
    with pytest.raises(MalformedError):
        Policy.from_value(value | {"members": spoil(value["members"])})


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "https://node-1.example.org:8443",
        "http://[2001:db8::1]:80/",
        "https://proxy_1/wmreg/node-1",
        "http://" + "a" * 505,
    ],
)
def test_a_member_is_where_a_url_can_lead(url):
    value = policy(1).to_value()
    value["members"][0]["api_url"] = url
    assert Policy.from_value(value).members[0].api_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "http:///path",
        "ftp://a",
        "HTTP://a",
        "//a",
        "a:80",
        "http://a b/",
        "http://a/ ",
        "http://a\n",
        "http://a\x7f",
        "http://a\u00a0",
        "http://ä.example",
        "http://a  witness x",
        "http://a:0",
        "http://a:65536",
        "http://a:٨٠",
        "http://user@a",
        "http://a?query",
        "http://a/#fragment",
        "http://a\\b",
        "http://[fe80::1%lo]",
        "http://" + "a" * 506,
        7,
    ],
)
def test_a_member_whose_url_leads_nowhere_is_malformed(url):
    value = policy(1).to_value()
    value["members"][0]["api_url"] = url
    with pytest.raises(MalformedError, match="api_url"):
        Policy.from_value(value)


def test_a_schema_names_what_is_missing_and_what_is_too_much():
    with pytest.raises(MalformedError, match=r"missing fields \['a'\], unknown fields \['b'\]"):
        schema.fields({"b": 1}, {"a": schema.uint()}, what="thing")
    with pytest.raises(MalformedError, match="expected a map"):
        schema.fields([], {}, what="thing")
    with pytest.raises(MalformedError, match="expected a map"):
        schema.mapping(7)
