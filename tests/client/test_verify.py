"""Promises: `wmreg verify` needs no network, tells what is proven and what is not, and no changed byte passes."""

import hashlib
import json

import pytest
from damage import with_flipped_bit
from fakes import LedgerMaker, public_key

from client.memory import Memory
from registry.entry import Entry
from registry.envelope import message_hash


@pytest.fixture
def certificate(ledger, alice, publish, claim, good):
    """The certificate of a claim that was won; the nodes are gone."""
    publish(alice)
    ledger.voting = (good, 3)
    assert claim(alice, alice.model).code == 0
    for node in ledger.nodes:
        node.down = True
    return alice.bundle.certificate


@pytest.fixture
def verify(wmreg, ledger):
    """Verify a file against the ledger's policy."""
    return lambda path, *more: wmreg("verify", path, "--policy", ledger.policy_path, *more)


def test_a_certificate_tells_its_story(certificate, verify, alice):
    told = verify(certificate)

    assert told.code == 0
    for fact in ("VERIFIED", "mtlsign", "590/600", "3 of 3 nodes", "published  entry 1", "does not prove"):
        assert fact in told.out


def test_the_same_for_programs(certificate, verify):
    document = verify(certificate, "--json").document

    assert document["kind"] == "certificate"
    assert document["published"]["not_after_s"] >= 0
    assert [vote["matched"] for vote in document["votes"]] == [590, 590, 590]


def test_a_certificate_is_exported_as_an_in_toto_statement(certificate, verify, alice, tmp_path):
    out = tmp_path / "statement.json"

    told = verify(certificate, "--in-toto", out)

    statement = json.loads(out.read_bytes())
    assert (told.code, str(out) in told.out, "VERIFIED" in told.out) == (0, True, True)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"][0]["digest"]["sha256"] == hashlib.sha256(alice.model.read_bytes()).hexdigest()
    digest = hashlib.sha256(certificate.read_bytes()).hexdigest()
    assert statement["predicate"]["certificate"]["digest"]["sha256"] == digest
    assert sorted(path.name for path in tmp_path.glob("*statement*")) == ["statement.json"]


def test_the_same_certificate_makes_the_same_statement(certificate, verify, tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"

    assert verify(certificate, "--in-toto", first, "--json").document["in_toto"] == str(first)
    assert verify(certificate, "--in-toto", second).code == 0

    assert first.read_bytes() == second.read_bytes()


def test_an_existing_file_is_not_overwritten_by_a_statement(certificate, verify, tmp_path):
    out = tmp_path / "statement.json"
    out.write_text("mine")

    refused = verify(certificate, "--in-toto", out, "--json")

    assert (refused.code, refused.document["error"]["code"]) == (2, "exists")
    assert out.read_text() == "mine"
    assert verify(certificate, "--in-toto", tmp_path / "nowhere" / "statement.json").code == 2


def test_nothing_is_exported_from_a_damaged_certificate_or_a_receipt(certificate, verify, alice, tmp_path):
    out = tmp_path / "statement.json"

    receipt = verify(alice.bundle.receipt, "--in-toto", out)
    certificate.write_bytes(certificate.read_bytes()[:-1])
    damaged = verify(certificate, "--in-toto", out)

    assert (receipt.code, damaged.code) == (2, 1)
    assert "needs a certificate" in receipt.err
    assert not out.exists()


def test_the_help_of_verify_shows_an_example(wmreg):
    helped = wmreg("verify", "--help")

    assert (helped.code, "wmreg verify certificate.json --in-toto statement.json" in helped.out) == (0, True)


def test_every_flipped_byte_of_a_certificate_is_refused(certificate, verify):
    original = certificate.read_bytes()
    for position in range(0, len(original), 61):
        certificate.write_bytes(with_flipped_bit(original, position))

        refused = verify(certificate)

        assert refused.code == 1, position
        assert refused.out == ""
        assert str(certificate) in refused.err


def test_a_flipped_byte_of_a_receipt_changes_nothing_that_is_believed(certificate, verify, alice):
    path = alice.bundle.receipt
    original = path.read_bytes()
    genuine = verify(path, "--json").document
    for position in range(0, len(original), 23):
        path.write_bytes(with_flipped_bit(original, position))

        answer = verify(path, "--json")

        if answer.code == 0:  # a signature under a name that nobody knows: a quorum is left, and counts alone
            assert len(answer.document["witnesses"]) >= 2
            assert ["not checked" in remark for remark in answer.document["remarks"]].count(True) == 1
            assert answer.document["message_hash"] == genuine["message_hash"]
        else:
            assert answer.code in {1, 3}, position


def test_a_receipt_whose_signatures_all_count_has_nothing_unchecked(certificate, verify, alice):
    assert not [
        remark for remark in verify(alice.bundle.receipt, "--json").document["remarks"] if "not checked" in remark
    ]


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda raw: raw.replace(b"\n", b"\r\n"), "Windows line ends"),
        (lambda raw: b"\xef\xbb\xbf" + raw, "byte order mark"),
    ],
)
@pytest.mark.parametrize("name", ["certificate", "receipt"])
def test_what_an_editor_did_to_a_file_is_named(certificate, verify, alice, name, change, hint):
    path = getattr(alice.bundle, name)
    path.write_bytes(change(path.read_bytes()))

    refused = verify(path)

    assert (refused.code, refused.err.count("\n"), hint in refused.err) == (1, 1, True)


def test_a_certificate_that_was_cut_off_is_called_so(certificate, verify):
    certificate.write_bytes(certificate.read_bytes()[:900])

    assert "cut off" in verify(certificate).err


def test_a_policy_of_other_nodes_does_not_trust_the_certificate(certificate, verify, wmreg, ledger, tmp_path):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from registry.note import KeyType, VerifierKey
    from registry.trust import Group, TrustedKey, TrustPolicy

    def key(name, kind):
        return VerifierKey(
            name=name, type=kind, public_key=Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        )

    origin = ledger.trust.origin
    stranger = TrustPolicy(
        logs=(TrustedKey(origin, key(origin, KeyType.ED25519), None),),
        witnesses=(TrustedKey("w", key(f"{origin}/w", KeyType.COSIGNATURE), None),),
        groups={"all": Group(1, ("w",))},
        quorum="all",
    )
    (tmp_path / "stranger.txt").write_text(str(stranger))

    refused = wmreg("verify", certificate, "--policy", tmp_path / "stranger.txt")

    assert (refused.code, refused.err.count("\n")) == (3, 1)
    assert "the policy file of its time" in refused.err


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01", b"{", b"{}", b"c2sp.org/tlog-proof@v1\n", b"c2sp.org/tlog-pro\xff"]
)
def test_what_is_neither_is_refused(ledger, verify, tmp_path, content):
    (tmp_path / "file").write_bytes(content)

    refused = verify(tmp_path / "file")

    assert refused.code == 1
    assert refused.err.count("\n") == 1
    assert "file" in refused.err


def test_show_tells_any_entry_from_a_checked_receipt(ledger, wmreg, alice, publish):
    published = publish(alice, "--json").document["message_hash"]

    shown = wmreg("show", published, "--policy", ledger.policy_path, "--json")

    assert shown.code == 0
    assert shown.document["body"]["scheme"] == "mtlsign"
    assert "key_commitment" in wmreg("show", published, "--policy", ledger.policy_path).out


def test_show_of_a_vote_names_the_numbers_of_its_controls(ledger, wmreg, alice, publish, claim, good):
    publish(alice)
    ledger.voting = (good, 3)
    claim(alice, alice.model)
    digest = message_hash(Entry.decode(ledger.raw[-1]).envelope).hex()

    shown = wmreg("show", digest, "--policy", ledger.policy_path, "--json").document

    control = {"kind": "fresh", "matched": 300, "suspect_only": 295, "control_only": 5}
    assert shown["body"]["measurement"]["controls"] == [control] * 8
    assert "suspect_only  295" in wmreg("show", digest, "--policy", ledger.policy_path).out


def test_show_of_an_unknown_hash_is_refused(ledger, wmreg):
    refused = wmreg("show", "00" * 32, "--policy", ledger.policy_path, "--json")

    assert (refused.code, refused.document["error"]["code"]) == (1, "not_found")


def test_show_of_a_ledger_with_another_past_is_an_alarm(ledger, wmreg, alice, bob, publish):
    publish(alice)
    digest = publish(bob, "--json").document["message_hash"]
    ledger.rewrite(1)
    ledger.apply(bob.bundle.publication.read_bytes())

    assert wmreg("show", digest, "--policy", ledger.policy_path).code == 5


def test_the_log_is_paged(ledger, wmreg, alice, bob, publish):
    publish(alice)
    publish(bob)

    last = wmreg("log", "--limit", 2, "--policy", ledger.policy_path, "--json").document
    first = wmreg("log", "--start", 0, "--limit", 2, "--policy", ledger.policy_path)

    assert [entry["index"] for entry in last["entries"]] == [1, 2]
    assert "more: --start 2" in first.out


@pytest.fixture
def equivocation(ledger, alice, publish, tmp_path):
    """Evidence that node-2 signed two trees of one size, and that node-1 signed one of them."""
    from registry.equivocation import Equivocation

    publish(alice)
    one = ledger.note(2, ledger.nodes[:2])
    ledger.forked_after = 1
    other = ledger.note(2, ledger.nodes[1:2])
    ledger.forked_after = None
    (tmp_path / "evidence.json").write_bytes(Equivocation.of(one, other).encode())
    return tmp_path / "evidence.json"


def test_evidence_of_two_pasts_is_told_in_plain_words_and_is_an_alarm(equivocation, verify, ledger):
    told = verify(equivocation)

    assert told.code == 5
    assert "TWO PASTS" in told.out
    convicted = told.out.split("These keys signed both")[1]
    assert "node-2" in convicted
    assert "node-1 " not in convicted
    assert ledger.nodes[1].url in convicted


def test_evidence_of_a_fork_between_nodes_tells_who_signed_which_side(equivocation, verify, ledger):
    from registry.equivocation import Equivocation

    ledger.forked_after = 1
    other = ledger.note(2, ledger.nodes[2:])
    ledger.forked_after = None
    equivocation.write_bytes(Equivocation.of(ledger.note(2, ledger.nodes[:2]), other).encode())

    told = verify(equivocation)

    assert told.code == 5
    assert "No key signed both" in told.out
    assert all(node.name in told.out for node in ledger.nodes)
    assert verify(equivocation, "--json").document["convicted"] == []


def test_every_flipped_byte_of_the_evidence_is_refused(equivocation, verify):
    original = equivocation.read_bytes()
    for position in range(0, len(original), 29):
        equivocation.write_bytes(with_flipped_bit(original, position))

        refused = verify(equivocation)

        assert refused.code == 1, position
        assert refused.out == ""


def test_evidence_that_shows_no_conflict_is_refused(equivocation, verify, ledger):
    from registry.equivocation import Equivocation

    equivocation.write_bytes(Equivocation.of(ledger.note(1), ledger.note(1)).encode())

    refused = verify(equivocation, "--json")

    assert (refused.code, refused.document["error"]["code"]) == (1, "no_conflict")


def test_a_certificate_with_a_history_is_told_with_it(wmreg, tmp_path):
    maker = LedgerMaker()
    publication, others = maker.publish("alice"), maker.publish("bob")
    maker.rotate("alice", "alice-2")
    claim = maker.submit(maker.seal(maker.claim_message("alice", publication), "alice-2")).message_hash
    maker.vote(1, claim), maker.vote(2, claim)
    maker.challenge("bob", claim, others)
    (tmp_path / "policy.txt").write_text(str(maker.trust))
    (tmp_path / "certificate.json").write_bytes(maker.certificate(claim).encode())

    told = wmreg("verify", tmp_path / "certificate.json", "--policy", tmp_path / "policy.txt")
    for fact in (public_key("alice").hex(), public_key("alice-2").hex(), public_key("bob").hex(), "the model is mine"):
        assert fact in told.out
    assert told.code == 0


def test_a_receipt_of_another_tree_than_was_seen_before_is_an_alarm(ledger, alice, publish, verify):
    publish(alice)
    assert verify(alice.bundle.receipt).code == 0
    seen = ledger.note(len(ledger.raw), root=b"\x07" * 32)
    Memory.default().path(ledger.trust.origin).write_text(seen)

    told = verify(alice.bundle.receipt, "--json")
    assert (told.code, told.document["error"]["code"]) == (5, "fork")


def test_an_offline_audit_of_another_past_than_was_seen_before_is_an_alarm(ledger, alice, publish, wmreg, tmp_path):
    publish(alice)
    mirror = tmp_path / "mirror"
    assert wmreg("audit", "--mirror", mirror, "--policy", ledger.policy_path).code == 0
    assert wmreg("audit", "--mirror", mirror, "--offline", "--policy", ledger.policy_path).code == 0
    Memory.default().path(ledger.trust.origin).write_text(ledger.note(1, root=b"\x07" * 32))

    told = wmreg("audit", "--mirror", mirror, "--offline", "--policy", ledger.policy_path, "--json")
    assert told.code == 5
    assert [finding["code"] for finding in told.document["findings"]] == ["rewritten_past"]


def test_what_cannot_be_compared_offline_with_what_was_seen_before_is_remarked_on(
    ledger, alice, publish, verify, wmreg, tmp_path
):
    publish(alice)
    mirror = tmp_path / "mirror"
    offline = ("audit", "--mirror", mirror, "--offline", "--policy", ledger.policy_path, "--json")
    assert wmreg("audit", "--mirror", mirror, "--policy", ledger.policy_path).code == 0
    same, same_audit = verify(alice.bundle.receipt, "--json"), wmreg(*offline)
    ledger.grow(1)
    assert wmreg("audit", "--policy", ledger.policy_path).code == 0
    larger, larger_audit = verify(alice.bundle.receipt, "--json"), wmreg(*offline)

    assert (same.document["remarks"], same_audit.document["remarks"]) == ([], [])
    assert (larger.code, larger_audit.code) == (0, 0)
    for told in (larger, larger_audit):
        assert any("not compared with the checkpoint of size 3" in remark for remark in told.document["remarks"])
    assert "note: not compared" in verify(alice.bundle.receipt).out


def test_a_certificate_that_shows_the_size_that_was_seen_before_is_compared(ledger, certificate, verify):
    seen = verify(certificate, "--json")
    Memory.default().path(ledger.trust.origin).write_text(ledger.note(3))

    assert seen.document["remarks"] == []
    assert "size 3" in verify(certificate, "--json").document["remarks"][0]


def test_a_damaged_memory_is_named(ledger, alice, publish, verify, wmreg, tmp_path):
    publish(alice)
    mirror = tmp_path / "mirror"
    assert wmreg("audit", "--mirror", mirror, "--policy", ledger.policy_path).code == 0
    path = Memory.default().path(ledger.trust.origin)
    path.write_text("garbage\n")

    audited = wmreg("audit", "--mirror", mirror, "--offline", "--policy", ledger.policy_path)

    assert audited.code == verify(alice.bundle.receipt).code == 1
    assert str(path) in audited.err
    assert str(path) in verify(alice.bundle.receipt).err
