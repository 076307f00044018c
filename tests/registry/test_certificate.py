"""A certificate proves a quorum's verdict offline, or the first thing wrong with it is named."""

import json
from dataclasses import replace

import pytest
from damage import with_flipped_bit
from fakes import ORIGIN, START_S, LedgerMaker, policy, private_key, public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import merkle, schema
from registry.certificate import Attestation, Certificate, verify_certificate
from registry.endpoint import endpoint_sha256
from registry.errors import (
    ConsistencyError,
    InclusionError,
    MalformedError,
    RefusedError,
    RegistryError,
    UntrustedError,
)
from registry.note import Note, cosign, sign
from registry.receipt import verify_receipt
from registry.trust import TrustPolicy
from registry.verdict import Outcome

MAKER = LedgerMaker()
MAKER.publish("bob")
CLAIM = MAKER.verified_claim("alice")
CERTIFICATE = MAKER.certificate(CLAIM)
RAW = CERTIFICATE.encode()


def test_a_certificate_tells_who_what_when_and_by_whose_word():
    story = verify_certificate(RAW, MAKER.trust)
    assert (story.owner, story.origin, story.claim_hash) == (public_key("alice"), ORIGIN, CLAIM)
    assert (story.publication_index, story.claim_index) == (2, 3)
    assert (story.quorum, story.members, story.witnesses) == (2, 3, ("node-1", "node-2", "node-3"))
    assert [(v.member, v.outcome, v.matched, v.total) for v in story.votes] == [
        (f"node-{number}", Outcome.VERIFIED, 600, 600) for number in (1, 2, 3)
    ]


def claim_on_endpoint(url: str, sha256: bytes) -> tuple[LedgerMaker, bytes]:
    """A ledger with a verified claim on an endpoint."""
    maker = LedgerMaker()
    message = maker.claim_message("alice", maker.publish("alice"))
    asked = replace(message, model_pointer=f"endpoint+{url}", model_sha256=sha256)
    claim = maker.submit(maker.seal(asked, "alice")).message_hash
    for node in (1, 2, 3):
        maker.vote(node, claim)
    return maker, claim


def test_of_a_claim_on_an_endpoint_it_names_the_url():
    url = "https://models.example/v2/models/digits"
    maker, claim = claim_on_endpoint(url, endpoint_sha256(url))
    assert verify_certificate(maker.certificate(claim).encode(), maker.trust).endpoint == url
    assert verify_certificate(RAW, MAKER.trust).endpoint is None


def test_a_quorum_that_verified_an_endpoint_under_the_hash_of_something_else_lied():
    url = "https://models.example/v2/models/digits"
    maker, claim = claim_on_endpoint(url, endpoint_sha256(f"{url}2"))
    with pytest.raises(MalformedError, match="not that of its URL"):
        verify_certificate(maker.certificate(claim).encode(), maker.trust)


def test_the_time_of_a_publication_lies_between_the_checkpoints_around_it():
    story = verify_certificate(RAW, MAKER.trust)
    recorded_s = MAKER.ledger.find(story.publication_hash).recorded_s
    assert story.published.not_before_s <= recorded_s <= story.published.not_after_s
    assert story.published.not_after_s <= story.claimed.not_after_s


def test_without_earlier_checkpoints_only_the_last_one_bounds_the_time():
    story = verify_certificate(replace(CERTIFICATE, attestations=()).encode(), MAKER.trust)
    assert story.published.not_before_s is None
    assert story.published.not_after_s == MAKER.now_s


@settings(max_examples=300)
@given(st.integers(0, len(RAW) - 1), st.integers(1, 255))
def test_no_changed_byte_is_accepted_and_damage_is_told_from_distrust(position, change):
    changed = bytearray(RAW)
    changed[position] ^= change
    with pytest.raises(MalformedError):
        verify_certificate(bytes(changed), MAKER.trust)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b"null", RAW[:-1], RAW + b"\n", b"[" * 100_000, b"\xff", b"x" * 2**24]
)
def test_what_is_not_a_certificate_is_malformed(raw):
    with pytest.raises(MalformedError):
        verify_certificate(raw, MAKER.trust)


def test_another_format_is_named():
    content = json.loads(RAW) | {"format": "wmreg-certificate/9"}
    with pytest.raises(MalformedError, match="wmreg-certificate/9"):
        verify_certificate(json.dumps(content).encode(), MAKER.trust)


def test_what_a_stranger_wrote_does_not_fill_the_error():
    long = "x" * 100_000
    raw = json.dumps(json.loads(RAW) | {"format": long}).encode()
    with pytest.raises(MalformedError) as damaged:
        verify_certificate(raw, MAKER.trust)
    with pytest.raises(UntrustedError) as foreign:
        MAKER.trust.check(Note(str(replace(MAKER.checkpoint(), origin=long)), ()))
    with pytest.raises(MalformedError) as unknown:
        schema.fields({long: 1}, {}, what="thing")
    for error in (damaged, foreign, unknown):
        assert "xxx" in str(error.value)
        assert len(str(error.value)) < 200


def test_a_reader_who_trusts_other_nodes_is_not_convinced():
    other = LedgerMaker(origin="elsewhere.org/wmreg").trust
    with pytest.raises(UntrustedError, match=r"elsewhere\.org"):
        verify_certificate(RAW, other)
    strangers = TrustPolicy.of(policy(4, 5), ORIGIN)
    with pytest.raises(UntrustedError):
        verify_certificate(RAW, strangers)


class TwoOrigins(LedgerMaker):
    """Nodes that sign the tree of one ledger as the log of another."""

    other = "elsewhere.org/wmreg"

    def checkpoint(self, size=None):
        return replace(super().checkpoint(size), origin=self.other)

    def note(self, size=None, *, nodes=None):
        kept, self.origin = self.origin, self.other
        try:
            return super().note(size, nodes=nodes)
        finally:
            self.origin = kept


def test_the_genesis_of_another_ledger_proves_nothing_in_this_one():
    crossed = TwoOrigins()
    claim, trust = crossed.verified_claim(), TrustPolicy.of(crossed.policy, TwoOrigins.other)
    foreign = replace(crossed.certificate(claim), origin=TwoOrigins.other, attestations=())
    with pytest.raises(UntrustedError, match="genesis"):
        verify_certificate(foreign.encode(), trust)
    genesis = crossed.ledger.policy_hashes[0]
    with pytest.raises(UntrustedError, match="genesis"):
        verify_receipt(crossed.receipt(genesis), trust)
    assert verify_receipt(MAKER.receipt(MAKER.ledger.policy_hashes[0]), MAKER.trust).signed.message.origin == ORIGIN


def test_a_checkpoint_without_a_quorum_of_cosignatures_is_not_trusted():
    lonely = replace(CERTIFICATE, checkpoint_note=str(MAKER.note(nodes=[1])))
    with pytest.raises(UntrustedError, match="quorum"):
        verify_certificate(lonely.encode(), MAKER.trust)


def forged_votes(kept):
    entries = CERTIFICATE.entries
    return replace(CERTIFICATE, entries=(*entries[:3], *entries[3 : 3 + kept]))


def test_too_few_votes_make_no_certificate():
    verify_certificate(forged_votes(2).encode(), MAKER.trust)
    with pytest.raises(RefusedError) as refused:
        verify_certificate(forged_votes(1).encode(), MAKER.trust)
    assert refused.value.code == "not_verified"


def flipped(entry):
    return replace(entry, entry=with_flipped_bit(entry.entry))


FORGERIES = {
    "entry of another index": lambda c: replace(
        c, entries=(*c.entries[:1], replace(c.entries[1], index=1), *c.entries[2:])
    ),
    "flipped entry": lambda c: replace(c, entries=(c.entries[0], flipped(c.entries[1]), *c.entries[2:])),
    "no genesis": lambda c: replace(c, entries=c.entries[1:]),
    "no publication": lambda c: replace(c, entries=(c.entries[0], *c.entries[2:])),
    "no claim": lambda c: replace(c, entries=(*c.entries[:2], *c.entries[3:])),
    "no entries": lambda c: replace(c, entries=()),
    "repeated vote": lambda c: replace(c, entries=(*c.entries, c.entries[-1])),
    "another origin": lambda c: replace(c, origin="elsewhere.org/wmreg"),
    "rewritten past": lambda c: replace(c, attestations=(replace(c.attestations[0], proof=(bytes(32),)),)),
    "checkpoint that lacks the votes": lambda c: replace(c, checkpoint_note=c.attestations[0].checkpoint_note),
    "shortened inclusion proof": lambda c: replace(
        c, entries=(replace(c.entries[0], proof=c.entries[0].proof[:-1]), *c.entries[1:])
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_certificate_with_a_right_hash_over_itself_is_refused(forgery):
    with pytest.raises(RegistryError) as refused:
        verify_certificate(FORGERIES[forgery](CERTIFICATE).encode(), MAKER.trust)
    kinds = (InclusionError, ConsistencyError, RefusedError, UntrustedError, MalformedError)
    assert isinstance(refused.value, kinds)


def test_a_refuted_claim_has_no_certificate():
    maker = LedgerMaker()
    claim = maker.claim("alice", maker.publish("alice"))
    for node in (1, 2):
        maker.vote(node, claim, outcome=Outcome.UNVERIFIABLE, reason="unreachable")
    with pytest.raises(RefusedError, match="UNVERIFIABLE"):
        verify_certificate(maker.certificate(claim).encode(), maker.trust)


def test_a_certificate_is_about_one_claim():
    maker = LedgerMaker()
    first = maker.certificate(maker.verified_claim("alice"))
    second = maker.certificate(maker.verified_claim("bob"))
    entries = {proven.index: proven for proven in (*first.entries, *second.entries)}
    size = maker.ledger.size
    both = replace(
        second,
        entries=tuple(replace(entries[index], proof=maker_proof(maker, index, size)) for index in sorted(entries)),
    )
    with pytest.raises(RefusedError, match="one claim"):
        verify_certificate(both.encode(), maker.trust)


def maker_proof(maker, index, size):
    return tuple(merkle.inclusion_proof(index, size, maker.read_node))


def test_a_certificate_decodes_to_what_was_encoded():
    assert Certificate.decode(RAW) == CERTIFICATE


def attested_at(size: int, *times_s: int) -> Attestation:
    """A checkpoint of a size that each node cosigned at its time."""
    text, lines = str(MAKER.checkpoint(size)), []
    for number, time_s in enumerate(times_s, start=1):
        name = f"node-{number}"
        lines.append(sign(text, name=ORIGIN, private_key=private_key(f"{name}/note")))
        cosigner = f"{ORIGIN}/{name}"
        lines.append(cosign(text, name=cosigner, private_key=private_key(f"{name}/cosigner"), timestamp_s=time_s))
    proof = merkle.consistency_proof(size, MAKER.ledger.size, MAKER.read_node)
    return Attestation(checkpoint_note=str(Note(text, tuple(lines))), proof=tuple(proof))


@pytest.mark.parametrize(
    ("late_s", "not_before_s"), [(5, START_S + 5), (86400, None)], ids=["in order", "behind the end"]
)
def test_a_beginning_behind_the_end_of_an_interval_is_left_out(late_s, not_before_s):
    lines = str(MAKER.trust).splitlines()[:-2]
    trust = TrustPolicy.parse("\n".join([*lines, "group nodes any node-1 node-2 node-3", "quorum nodes", ""]))
    published, _ = MAKER.ledger.claim_state(CLAIM).order
    attestations = (attested_at(published, START_S, START_S + late_s), attested_at(published + 1, START_S + 10))

    story = verify_certificate(replace(CERTIFICATE, attestations=attestations).encode(), trust)

    assert (story.published.not_before_s, story.published.not_after_s) == (not_before_s, START_S + 10)
