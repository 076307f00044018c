"""Checkpoints, notes and receipts that were forged, each named by the forgery; the honest twin is accepted first.

Where a forgery could be signed, it is: by all nodes, with keys that the reader trusts.
"""

from dataclasses import replace

import pytest
from damage import with_flipped_bit
from fakes import ORIGIN, LedgerMaker, member, policy, private_key

from registry import merkle
from registry.checkpoint import Checkpoint
from registry.errors import InclusionError, MalformedError, RefusedError, RegistryError, UntrustedError
from registry.note import Note, SignatureLine, cosign, sign
from registry.policy import Policy
from registry.receipt import Receipt, verify_receipt
from registry.trust import TrustPolicy

MAKER = LedgerMaker()
PUBLICATIONS = [MAKER.publish(owner) for owner in ("alice", "bob", "carol", "dave", "erin", "frank")]
NOTE, TEXT = MAKER.note(), MAKER.note().text
ROOT_LINE = TEXT.splitlines()[2]
SIZE_LINE = f"\n{MAKER.ledger.size}\n"


def signed_by_all(text, *, origin=ORIGIN):
    """Any text under good signatures and cosignatures of all three nodes."""
    lines = []
    for name in ("node-1", "node-2", "node-3"):
        lines.append(sign(text, name=origin, private_key=private_key(f"{name}/note")))
        cosigner = private_key(f"{name}/cosigner")
        lines.append(cosign(text, name=f"{origin}/{name}", private_key=cosigner, timestamp_s=MAKER.now_s))
    return Note(text, tuple(lines))


def test_the_honest_note_and_receipts_are_accepted():
    assert MAKER.trust.check(Note.parse(str(signed_by_all(TEXT)))).checkpoint == MAKER.checkpoint()
    for digest in PUBLICATIONS:
        assert verify_receipt(MAKER.receipt(digest), MAKER.trust).signed.hash == digest


SIGNED_TEXTS = {
    "leading zero": TEXT.replace("\n7\n", "\n07\n"),
    "plus sign": TEXT.replace("\n7\n", "\n+7\n"),
    "space before": TEXT.replace("\n7\n", "\n 7\n"),
    "space behind": TEXT.replace("\n7\n", "\n7 \n"),
    "underscore": TEXT.replace("\n7\n", "\n0_7\n"),
    "Arabic digit": TEXT.replace("\n7\n", "\n٧\n"),
    "fullwidth digit": TEXT.replace("\n7\n", "\n\uff17\n"),
    "superscript digit": TEXT.replace("\n7\n", "\n⁷\n"),
    "hexadecimal": TEXT.replace("\n7\n", "\n0x7\n"),
    "decimal point": TEXT.replace("\n7\n", "\n7.0\n"),
    "negative": TEXT.replace("\n7\n", "\n-7\n"),
    "empty size": TEXT.replace("\n7\n", "\n\n"),
    "size 2^64": TEXT.replace("\n7\n", f"\n{2**64}\n"),
    "size 2^64 + 7": TEXT.replace("\n7\n", f"\n{2**64 + 7}\n"),
    "padding bits": TEXT.replace(ROOT_LINE, ROOT_LINE[:-2] + chr(ord(ROOT_LINE[-2]) + 1) + "="),
    "no padding": TEXT.replace(ROOT_LINE, ROOT_LINE.rstrip("=")),
    "root in url-safe base64": TEXT.replace(ROOT_LINE, "-" + ROOT_LINE[1:]),
    "root in hexadecimal": TEXT.replace(ROOT_LINE, MAKER.checkpoint().root.hex()),
    "short root": TEXT.replace(ROOT_LINE, "AAAA"),
    "extension line": TEXT + "more\n",
    "empty extension line": TEXT + "\n",
    "carriage return": TEXT.replace("\n", "\r\n"),
    "two lines": "\n".join(TEXT.split("\n")[:2]) + "\n",
    "origin with a space": TEXT.replace(ORIGIN, f"{ORIGIN} "),
}


@pytest.mark.parametrize("forgery", SIGNED_TEXTS)
def test_a_checkpoint_spelled_otherwise_is_malformed_whoever_signed_it(forgery):
    assert SIGNED_TEXTS[forgery] != TEXT
    with pytest.raises(MalformedError):
        MAKER.trust.check(signed_by_all(SIGNED_TEXTS[forgery]))


def with_lines(*lines):
    return Note(TEXT, lines)


LOG_1, COSIGNED_1, LOG_2, COSIGNED_2, LOG_3, COSIGNED_3 = NOTE.signatures


def moved(line, *, to):
    """A signature under another signer's name and key ID."""
    return SignatureLine(to.name, to.key_id, line.payload)


def flipped(line, *, position=-1):
    payload = bytearray(line.payload)
    payload[position] ^= 1
    return SignatureLine(line.name, line.key_id, bytes(payload))


OTHER = Checkpoint(origin=ORIGIN, size=7, root=bytes(32))
FOREIGN_TEXT = TEXT.replace(ORIGIN, "elsewhere.org/log")
FORGED_NOTES = {
    "flipped log signature": (with_lines(flipped(LOG_1), *NOTE.signatures[1:]), "bad_signature"),
    "flipped cosignature": (with_lines(*NOTE.signatures[:5], flipped(COSIGNED_3)), "bad_signature"),
    "flipped time": (with_lines(LOG_1, flipped(COSIGNED_1, position=7), COSIGNED_2), "bad_signature"),
    "signatures of two nodes swapped": (
        with_lines(LOG_1, moved(COSIGNED_1, to=COSIGNED_2), moved(COSIGNED_2, to=COSIGNED_1)),
        "bad_signature",
    ),
    "cosignature in the log's place": (with_lines(moved(COSIGNED_1, to=LOG_1), *NOTE.signatures[1:]), "bad_signature"),
    "log signature in a cosignature's place": (with_lines(LOG_1, moved(LOG_1, to=COSIGNED_1)), "bad_signature"),
    "truncated signature": (
        with_lines(SignatureLine(LOG_1.name, LOG_1.key_id, LOG_1.payload[:-1]), COSIGNED_1),
        "bad_signature",
    ),
    "lengthened signature": (
        with_lines(SignatureLine(LOG_1.name, LOG_1.key_id, LOG_1.payload + b"\0"), COSIGNED_1),
        "bad_signature",
    ),
    "duplicate log signature": (with_lines(LOG_1, LOG_1, COSIGNED_1, COSIGNED_2), "duplicate_signature"),
    "duplicate cosigner": (with_lines(LOG_1, COSIGNED_1, COSIGNED_1), "duplicate_signature"),
    "duplicate cosigner at two times": (
        with_lines(
            LOG_1,
            COSIGNED_1,
            cosign(TEXT, name=COSIGNED_1.name, private_key=private_key("node-1/cosigner"), timestamp_s=1),
        ),
        "duplicate_signature",
    ),
    "signatures of a smaller tree": (Note(TEXT, MAKER.note(3).signatures), "bad_signature"),
    "size / 2": (Note(TEXT.replace(SIZE_LINE, "\n3\n"), NOTE.signatures), "bad_signature"),
    "size + 1": (Note(TEXT.replace(SIZE_LINE, "\n8\n"), NOTE.signatures), "bad_signature"),
    "size near 2^64": (Note(TEXT.replace(SIZE_LINE, f"\n{2**64 - 1}\n"), NOTE.signatures), "bad_signature"),
    "another root": (Note(str(OTHER), NOTE.signatures), "bad_signature"),
    "one honest signature and one of another tree": (
        with_lines(LOG_1, COSIGNED_1, signed_by_all(str(OTHER)).signatures[3]),
        "bad_signature",
    ),
    "one node alone": (with_lines(LOG_1, COSIGNED_1), "untrusted"),
    "log signatures alone": (with_lines(LOG_1, LOG_2, LOG_3), "untrusted"),
    "cosignatures alone": (with_lines(COSIGNED_1, COSIGNED_2, COSIGNED_3), "untrusted"),
    "renamed cosigner": (
        with_lines(LOG_1, COSIGNED_1, SignatureLine("node-2", COSIGNED_2.key_id, COSIGNED_2.payload)),
        "untrusted",
    ),
    "another key ID": (
        with_lines(LOG_1, COSIGNED_1, SignatureLine(COSIGNED_2.name, b"\0\0\0\0", bytes(72))),
        "untrusted",
    ),
    "foreign origin": (signed_by_all(FOREIGN_TEXT, origin="elsewhere.org/log"), "untrusted"),
    "foreign origin under our names": (signed_by_all(FOREIGN_TEXT), "untrusted"),
}


@pytest.mark.parametrize("forgery", FORGED_NOTES)
def test_a_forged_note_is_refused(forgery):
    note, code = FORGED_NOTES[forgery]
    with pytest.raises((RefusedError, UntrustedError)) as refused:
        MAKER.trust.check(Note.parse(str(note)))
    assert refused.value.code == code


RAW = str(NOTE)
DAMAGED = {
    "trailing garbage": RAW + "garbage",
    "trailing line": RAW + "garbage\n",
    "trailing newline": RAW + "\n",
    "trailing NUL": RAW + "\0",
    "leading newline": "\n" + RAW,
    "byte order mark": "\ufeff" + RAW,
    "no last newline": RAW[:-1],
    "hyphen for the dash": RAW.replace("—", "-", 1),
    "two spaces": RAW.replace(f"— {ORIGIN} ", f"— {ORIGIN}  ", 1),
    "empty line among the signatures": RAW.replace("\n— ", "\n\n— ", 3),
    "signatures first": "".join(f"{line}\n" for line in NOTE.signatures) + "\n" + TEXT,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_note_is_never_taken_for_the_checkpoint(damage):
    with pytest.raises(RegistryError):
        MAKER.trust.check(Note.parse(DAMAGED[damage]))


def test_no_truncated_note_has_more_witnesses_than_whole_lines():
    for length in range(len(RAW)):
        whole_lines = RAW[:length].count("\n") - 4
        try:
            trusted = MAKER.trust.check(Note.parse(RAW[:length]))
        except RegistryError:
            continue
        assert RAW[:length].endswith("\n")
        assert len(trusted.times_s) == whole_lines // 2 >= 2


def rotated(*names):
    """The trust policy of a time when these members had other keys."""
    members = tuple(replace(member(f"{m.name}-old"), name=m.name) if m.name in names else m for m in policy().members)
    return TrustPolicy.of(Policy(members=members, quorum=2), ORIGIN)


@pytest.mark.parametrize(("stale", "is_trusted"), [((), True), (("node-3",), True), (("node-2", "node-3"), False)])
def test_a_stale_policy_trusts_only_the_keys_that_it_knows(stale, is_trusted):
    trust, receipt = rotated(*stale), MAKER.receipt(PUBLICATIONS[2])
    if is_trusted:
        assert len(verify_receipt(receipt, trust).trusted.times_s) == 3 - len(stale)
        return
    with pytest.raises(UntrustedError):
        trust.check(NOTE)
    with pytest.raises(UntrustedError):
        verify_receipt(receipt, trust)


SIZE = MAKER.ledger.size


def receipt_at_end(index):
    """The receipt of an entry on the last checkpoint."""
    proof = tuple(merkle.inclusion_proof(index, SIZE, MAKER.read_node))
    return Receipt(entry=MAKER.entries[index], index=index, proof=proof, checkpoint_note=str(NOTE))


HONEST = receipt_at_end(3)
FOREIGN = LedgerMaker(origin="elsewhere.org/wmreg")
FOREIGN_RECEIPT = FOREIGN.receipt(FOREIGN.publish("alice"))
FORGED_RECEIPTS = {
    "index + 1": (replace(HONEST, index=4), InclusionError),
    "index - 1": (replace(HONEST, index=2), InclusionError),
    "index zero": (replace(HONEST, index=0), InclusionError),
    "index = size": (replace(HONEST, index=SIZE), InclusionError),
    "index near 2^64": (replace(HONEST, index=2**64 - 1), InclusionError),
    "entry of another index": (replace(HONEST, entry=MAKER.entries[4]), InclusionError),
    "proof of another index": (replace(HONEST, proof=receipt_at_end(4).proof), InclusionError),
    "flipped entry": (replace(HONEST, entry=with_flipped_bit(HONEST.entry)), InclusionError),
    "truncated entry": (replace(HONEST, entry=HONEST.entry[:-1]), InclusionError),
    "lengthened entry": (replace(HONEST, entry=HONEST.entry + b"\0"), InclusionError),
    "empty entry": (replace(HONEST, entry=b""), InclusionError),
    "flipped proof": (
        replace(HONEST, proof=(with_flipped_bit(HONEST.proof[0], 0), *HONEST.proof[1:])),
        InclusionError,
    ),
    "truncated proof": (replace(HONEST, proof=HONEST.proof[:-1]), InclusionError),
    "no proof": (replace(HONEST, proof=()), InclusionError),
    "swapped proof": (replace(HONEST, proof=HONEST.proof[::-1]), InclusionError),
    "trailing hash": (replace(HONEST, proof=(*HONEST.proof, bytes(32))), InclusionError),
    "short hash": (replace(HONEST, proof=(HONEST.proof[0][:31], *HONEST.proof[1:])), InclusionError),
    "checkpoint of size / 2": (replace(HONEST, checkpoint_note=str(MAKER.note(SIZE // 2))), InclusionError),
    "checkpoint of size - 1": (replace(HONEST, checkpoint_note=str(MAKER.note(SIZE - 1))), InclusionError),
    "checkpoint before the entry": (replace(HONEST, checkpoint_note=str(MAKER.note(1))), InclusionError),
    "fork signed by all": (replace(HONEST, checkpoint_note=str(signed_by_all(str(OTHER)))), InclusionError),
    "size near 2^64 signed by all": (
        replace(HONEST, checkpoint_note=str(signed_by_all(TEXT.replace(SIZE_LINE, f"\n{2**64 - 1}\n")))),
        InclusionError,
    ),
    "size moved under its signatures": (
        replace(HONEST, checkpoint_note=RAW.replace(SIZE_LINE, "\n8\n")),
        RefusedError,
    ),
    "duplicate signer": (
        replace(HONEST, checkpoint_note=str(with_lines(LOG_1, COSIGNED_1, COSIGNED_1))),
        RefusedError,
    ),
    "one signer": (replace(HONEST, checkpoint_note=str(with_lines(LOG_1, COSIGNED_1))), UntrustedError),
    "foreign ledger": (FOREIGN_RECEIPT, UntrustedError),
    "foreign entry": (replace(HONEST, entry=FOREIGN_RECEIPT.entry), InclusionError),
    "foreign checkpoint": (replace(HONEST, checkpoint_note=FOREIGN_RECEIPT.checkpoint_note), UntrustedError),
    "no checkpoint": (replace(HONEST, checkpoint_note=""), MalformedError),
    "trailing garbage": (replace(HONEST, checkpoint_note=HONEST.checkpoint_note + "garbage"), MalformedError),
}


@pytest.mark.parametrize("forgery", FORGED_RECEIPTS)
def test_a_forged_receipt_is_refused(forgery):
    verify_receipt(Receipt.parse(str(HONEST)), MAKER.trust)
    receipt, error = FORGED_RECEIPTS[forgery]
    with pytest.raises(error):
        verify_receipt(Receipt.parse(str(receipt)), MAKER.trust)


def test_an_entry_of_another_ledger_is_refused_even_in_our_tree():
    foreign = FOREIGN_RECEIPT.entry
    digests = [merkle.leaf_hash(MAKER.entries[0]), merkle.leaf_hash(foreign)]
    note = signed_by_all(str(Checkpoint(origin=ORIGIN, size=2, root=merkle.root(digests))))
    receipt = Receipt(entry=foreign, index=1, proof=(digests[0],), checkpoint_note=str(note))
    with pytest.raises(RefusedError) as refused:
        verify_receipt(receipt, MAKER.trust)
    assert refused.value.code == "bad_signature"


PRINTED = str(HONEST)
INDEX_LINE = "\nindex 3\n"
SPELLED = {
    "leading zero": PRINTED.replace(INDEX_LINE, "\nindex 03\n"),
    "plus sign": PRINTED.replace(INDEX_LINE, "\nindex +3\n"),
    "two spaces": PRINTED.replace(INDEX_LINE, "\nindex  3\n"),
    "underscore": PRINTED.replace(INDEX_LINE, "\nindex 0_3\n"),
    "Arabic digit": PRINTED.replace(INDEX_LINE, "\nindex ٣\n"),
    "negative": PRINTED.replace(INDEX_LINE, "\nindex -3\n"),
    "index 2^64": PRINTED.replace(INDEX_LINE, f"\nindex {2**64}\n"),
    "index 2^64 + 3": PRINTED.replace(INDEX_LINE, f"\nindex {2**64 + 3}\n"),
    "no index": PRINTED.replace(INDEX_LINE, "\n"),
    "index twice": PRINTED.replace(INDEX_LINE, INDEX_LINE + INDEX_LINE[1:]),
    "index before the entry": "\n".join(PRINTED.split("\n")[i] for i in (0, 2, 1)) + "\n" + PRINTED.split("\n", 3)[3],
    "another version": PRINTED.replace("@v1", "@v2"),
    "carriage returns": PRINTED.replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + PRINTED,
    "leading newline": "\n" + PRINTED,
}


@pytest.mark.parametrize("spelling", SPELLED)
def test_a_receipt_spelled_otherwise_is_malformed(spelling):
    with pytest.raises(MalformedError):
        Receipt.parse(SPELLED[spelling])
