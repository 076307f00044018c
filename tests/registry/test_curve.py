"""A public key is a point that one party alone can sign for; the curve is computed a second time here, step by step.

So are signatures, those among them that libraries disagree about: the rule of the ledger is the strict one, without the
cofactor, whatever the library under it does.
"""

import hashlib
import itertools
from dataclasses import replace
from functools import lru_cache

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from damage import with_flipped_bit
from fakes import START_S, LedgerMaker, member, policy, private_key, public_key, refused
from hypothesis import given
from hypothesis import strategies as st

from registry import known_answers
from registry.curve import is_for_everybody, is_public_key
from registry.encoding import encode
from registry.errors import MalformedError, RefusedError
from registry.messages import Rotation
from registry.note import KeyType, Note, SignatureLine, VerifierKey, verify_signatures
from registry.policy import Policy
from registry.rules import Accepted
from registry.signing import is_signed
from registry.trust import TrustPolicy

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
NEUTRAL = (0, 1)


def x_of(y):
    """RFC 8032, section 5.1.3, steps 2 and 3 with a square root in words; None where there is none."""
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    root = pow(square, (P + 3) // 8, P)
    for candidate in (root, root * pow(2, (P - 1) // 4, P) % P):
        if candidate * candidate % P == square:
            return candidate
    return None


def plus(one, other):
    (x, y), (u, v) = one, other
    both = D * x * u * y * v
    return (x * v + u * y) * pow(1 + both, -1, P) % P, (y * v + x * u) * pow(1 - both, -1, P) % P


def times(factor, point):
    total = NEUTRAL
    for bit in f"{factor:b}":
        total = plus(total, total)
        total = plus(total, point) if bit == "1" else total
    return total


def spell(x, y):
    return (y | (x & 1) << 255).to_bytes(32, "little")


POINTS = [(x_of(y), y) for y in range(3, 60) if x_of(y)]
SMALL = {times(L, point) for point in POINTS}
NOT_REDUCED = {(y | sign << 255).to_bytes(32, "little") for y in range(P, 2**255) for sign in (0, 1)}
NEGATIVE_ZERO = {(y | 1 << 255).to_bytes(32, "little") for y in (1, P - 1)}
FOR_EVERYBODY = {spell(*point) for point in SMALL} | NEGATIVE_ZERO | NOT_REDUCED
NEUTRAL_KEY = spell(*NEUTRAL)
NOBODYS_SIGNATURE = NEUTRAL_KEY + bytes(32)
NO_POINT = next(y for y in range(2, 100) if x_of(y) is None).to_bytes(32, "little")
BAD_KEYS = {
    "the neutral point": NEUTRAL_KEY,
    "a point of order 8": max(FOR_EVERYBODY - NOT_REDUCED),
    "another spelling of a point": (P + 3).to_bytes(32, "little"),
    "no point": NO_POINT,
}


def test_the_points_of_small_order_are_eight_and_all_refused():
    assert len(SMALL) == 8
    assert all(times(8, point) == NEUTRAL for point in SMALL)
    for key in FOR_EVERYBODY:
        assert is_for_everybody(key)
        assert not is_public_key(key)


@given(st.binary(min_size=32, max_size=32))
def test_any_bytes_are_a_key_when_they_are_a_point(raw):
    y = int.from_bytes(raw, "little") % 2**255
    assert is_public_key(raw) == (x_of(y) is not None and raw not in FOR_EVERYBODY)


@given(st.binary(max_size=10))
def test_every_private_key_has_a_public_key_and_no_other_length_is_one(seed):
    key = public_key(seed.hex())
    assert is_public_key(key)
    assert not is_public_key(key[:-1])
    assert not is_public_key(key + b"\0")


@given(st.binary())
def test_nobody_is_the_signer_of_a_text_that_everybody_can_sign(text):
    assert not is_signed(text, signer=NEUTRAL_KEY, signature=NOBODYS_SIGNATURE)
    assert is_signed(text, signer=public_key("alice"), signature=private_key("alice").sign(text))


def test_a_publication_that_nobody_signed_is_refused(maker):
    body, signatures = maker.publication_message("x").to_body(), [[NEUTRAL_KEY, NOBODYS_SIGNATURE]]
    nobodys = encode({"version": 1, "kind": "publish", "body": body, "signatures": signatures})
    assert refused(maker.submit(nobodys)) == "bad_signature"
    assert isinstance(maker.submit(maker.seal(maker.publication_message("x"), "x")), Accepted)


@pytest.mark.parametrize("bad", BAD_KEYS.values(), ids=BAD_KEYS)
@pytest.mark.parametrize("role", ["signing_key", "note_key", "cosigner_key"])
def test_a_member_whose_key_is_nobodys_own_is_malformed(role, bad):
    joining = replace(member("node-4"), **{role: bad})
    with pytest.raises(MalformedError, match=role):
        Policy.from_value(replace(policy(1), members=(member("node-1"), joining), quorum=2).to_value())


@pytest.mark.parametrize("bad", BAD_KEYS.values(), ids=BAD_KEYS)
@pytest.mark.parametrize("role", ["old_key", "new_key"])
def test_nobody_moves_from_or_to_a_key_of_everybody(role, bad):
    rotation = Rotation(time_s=START_S, old_key=public_key("alice"), new_key=public_key("alice-2"))
    assert Rotation.from_body(rotation.to_body()) == rotation
    with pytest.raises(MalformedError, match=role):
        Rotation.from_body(rotation.to_body() | {role: bad})


@pytest.mark.parametrize("bad", BAD_KEYS.values(), ids=BAD_KEYS)
@pytest.mark.parametrize("kind", [KeyType.ED25519, KeyType.COSIGNATURE])
def test_a_trust_policy_knows_no_key_of_everybody(kind, bad):
    honest = VerifierKey(name="example.org/w", type=kind, public_key=public_key("w"))
    with pytest.raises(MalformedError, match=r"example\.org/w"):
        replace(honest, public_key=bad)
    text = str(LedgerMaker().trust).replace("group nodes", f"witness w {honest}\ngroup nodes")
    if kind is KeyType.COSIGNATURE:
        TrustPolicy.parse(text)
    forged = replace(honest)
    object.__setattr__(forged, "public_key", bad)
    with pytest.raises(MalformedError, match="full order"):
        TrustPolicy.parse(text.replace(str(honest), str(forged)))


BASE = (x_of(4 * pow(5, P - 2, P) % P), 4 * pow(5, P - 2, P) % P)
BASE = BASE if BASE[0] % 2 == 0 else (P - BASE[0], BASE[1])
TEXT = b"example.org/w\n1\n" + b"A" * 43 + b"=\n"
SECRET, NONCE = 2**200 + 12345, 2**199 + 678
OWN = times(SECRET, BASE)
ORDER_8 = next(point for point in sorted(SMALL) if times(4, point) != NEUTRAL)
ORDER_2 = (0, P - 1)


def challenge(commitment, key, text=TEXT):
    return int.from_bytes(hashlib.sha512(commitment + key + text).digest(), "little") % L


def signed_with(nonce, commitment, key, *, secret=SECRET):
    """S for a commitment that may have more in it than nonce·B, under a key that may have more than secret·B."""
    return commitment + ((nonce + challenge(commitment, key) * secret) % L).to_bytes(32, "little")


def holds_without_cofactor(signature, key, key_point):
    """Whether S·B - H·A is R, byte for byte."""
    s = int.from_bytes(signature[32:], "little")
    minus = times(8 * L - challenge(signature[:32], key), key_point)
    return spell(*plus(times(s, BASE), minus)) == signature[:32]


def mixed_key_signature(*, is_equation_kept):
    """A signature under a key with a part of order 8, whose challenge does, or does not, take that part out."""
    key = spell(*plus(OWN, ORDER_8))
    for nonce in range(NONCE, NONCE + 200):
        commitment = spell(*times(nonce, BASE))
        if (challenge(commitment, key) % 8 == 0) == is_equation_kept:
            return key, signed_with(nonce, commitment, key)
    raise AssertionError("no such challenge")


def small_commitment():
    """A signature under a mixed key whose R is of small order and fits: OpenSSL takes it."""
    for secret, power in itertools.product(range(SECRET, SECRET + 20), range(1, 8)):
        key, commitment = spell(*plus(times(secret, BASE), ORDER_8)), spell(*times(power, ORDER_8))
        if (power + challenge(commitment, key)) % 8 == 0:
            return key, signed_with(0, commitment, key, secret=secret)
    raise AssertionError("no such challenge")


OWN_KEY, GOOD = spell(*OWN), signed_with(NONCE, spell(*times(NONCE, BASE)), spell(*OWN))
NOT_BELOW_ORDER = GOOD[:32] + (int.from_bytes(GOOD[32:], "little") + L).to_bytes(32, "little")
SIGNATURES = {
    "an honest one": (OWN_KEY, GOOD, True),
    "a mixed key, where the equation holds": (*mixed_key_signature(is_equation_kept=True), True),
    "a mixed key, with the cofactor alone": (*mixed_key_signature(is_equation_kept=False), False),
    "a mixed R, with the cofactor alone": (
        OWN_KEY,
        signed_with(NONCE, spell(*plus(times(NONCE, BASE), ORDER_8)), OWN_KEY),
        False,
    ),
    "R with a part of order 2": (
        OWN_KEY,
        signed_with(NONCE, spell(*plus(times(NONCE, BASE), ORDER_2)), OWN_KEY),
        False,
    ),
    "R the neutral point": (OWN_KEY, signed_with(0, NEUTRAL_KEY, OWN_KEY), False),
    "R the neutral point in another spelling": (
        OWN_KEY,
        signed_with(0, (P + 1).to_bytes(32, "little"), OWN_KEY),
        False,
    ),
    "R the neutral point with a sign": (OWN_KEY, signed_with(0, (1 | 1 << 255).to_bytes(32, "little"), OWN_KEY), False),
    "R of small order": (*small_commitment(), False),
    "R no point": (OWN_KEY, signed_with(NONCE, NO_POINT, OWN_KEY), False),
    "S not below the order": (OWN_KEY, NOT_BELOW_ORDER, False),
    "S with a high bit": (OWN_KEY, GOOD[:63] + bytes([GOOD[63] | 0x80]), False),
    "a flipped bit": (OWN_KEY, with_flipped_bit(GOOD, 40), False),
    "a byte too few": (OWN_KEY, GOOD[:-1], False),
    "a byte too many": (OWN_KEY, GOOD + b"\0", False),
    "a short key": (OWN_KEY[:-1], GOOD, False),
    "no key": (NO_POINT, GOOD, False),
}


@pytest.mark.parametrize(("key", "signature", "holds"), SIGNATURES.values(), ids=SIGNATURES)
def test_a_signature_holds_by_the_strict_rule_on_every_node(key, signature, holds):
    assert is_signed(TEXT, signer=key, signature=signature) is holds


def test_the_vectors_are_what_their_names_say():
    key, signature, _ = SIGNATURES["a mixed key, where the equation holds"]
    assert holds_without_cofactor(signature, key, plus(OWN, ORDER_8))
    for name in ("a mixed R, with the cofactor alone", "R with a part of order 2"):
        assert not holds_without_cofactor(SIGNATURES[name][1], OWN_KEY, OWN)
    key, signature, _ = SIGNATURES["a mixed key, with the cofactor alone"]
    assert not holds_without_cofactor(signature, key, plus(OWN, ORDER_8))


@pytest.mark.parametrize(
    "name", [name for name in SIGNATURES if not name.startswith(("R of small", "R the neutral point"))]
)
def test_openssl_says_the_same_of_all_but_an_r_of_small_order(name):
    key, signature, holds = SIGNATURES[name]
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, TEXT)
    except (InvalidSignature, ValueError):
        assert not holds
    else:
        assert holds


def test_an_r_of_small_order_would_pass_openssl_and_is_refused_here():
    for name in ("R the neutral point", "R of small order"):
        key, signature, _ = SIGNATURES[name]
        Ed25519PublicKey.from_public_bytes(key).verify(signature, TEXT)
        assert not is_signed(TEXT, signer=key, signature=signature)


def point_of(spelled):
    """The point that 32 bytes spell, however; None for none."""
    y = int.from_bytes(spelled, "little") % 2**255 % P
    x = x_of(y)
    return x if x is None else ((P - x) % P if x & 1 != spelled[31] >> 7 else x, y)


@lru_cache
def remainder(signature, key):
    """S·B - H·A - R, whatever the points are and however they are spelled; None where one is none."""
    commitment, public, s = point_of(signature[:32]), point_of(key), int.from_bytes(signature[32:], "little")
    if commitment is None or public is None:
        return None
    (x, y), back = commitment, times(challenge(signature[:32], key), public)
    return plus(plus(times(s, BASE), (P - back[0], back[1])), (P - x, y))


def holds_with(signature, key, *, cofactor):
    """Whether cofactor·(S·B - H·A - R) is the neutral point."""
    left = remainder(signature, key)
    return left is not None and times(cofactor, left) == NEUTRAL


def is_strict(signed, *, signer, signature):
    """The rule, once more: point by point."""
    assert signed == TEXT
    below = int.from_bytes(signature[32:], "little") < L
    return below and not {signer, signature[:32]} & FOR_EVERYBODY and holds_with(signature, signer, cofactor=1)


def test_the_known_answers_are_those_of_the_rule_computed_point_by_point():
    for answer in known_answers.ANSWERS:
        key, signature = bytes.fromhex(answer.key), bytes.fromhex(answer.r_and_s)
        assert is_strict(TEXT, signer=key, signature=signature) is answer.holds, answer.name
    assert known_answers.TEXT == TEXT
    assert known_answers.wrong_answers(is_signed) == []


def lenient(*, cofactor=1, takes_small_order=False, takes_large_s=False):
    """What another library could do."""

    def is_taken(signed, *, signer, signature):
        if signed != TEXT:
            return is_signed(signed, signer=signer, signature=signature)
        if not takes_small_order and {signer, signature[:32]} & FOR_EVERYBODY:
            return False
        if not takes_large_s and int.from_bytes(signature[32:], "little") >= L:
            return False
        return holds_with(signature, signer, cofactor=cofactor)

    return is_taken


@pytest.mark.parametrize(
    ("library", "named", "count"),
    [
        (lenient(), "", 0),
        (lenient(cofactor=8), "with the cofactor alone", 3),
        (lenient(takes_small_order=True), "the neutral point", 7),
        (lenient(takes_large_s=True), "S not below the order", 1),
        (lambda _signed, **_: False, "made as everybody makes it", 3),
        (lambda _signed, **_: True, "S with a flipped bit", 15),
    ],
    ids=["the rule", "cofactor", "small order", "large S", "nothing holds", "everything holds"],
)
def test_a_library_with_another_rule_gives_itself_away(library, named, count):
    wrong = known_answers.wrong_answers(library)
    assert len(wrong) == count
    assert not count or any(named in name for name in wrong)


@pytest.mark.parametrize("name", ["an honest one", "R the neutral point"])
def test_a_note_is_held_to_the_same_rule(name):
    public, signature, holds = SIGNATURES[name]
    key = VerifierKey(name="example.org/w", type=KeyType.ED25519, public_key=public)
    note = Note(TEXT.decode(), (SignatureLine(key.name, key.key_id, signature),))
    if holds:
        assert len(verify_signatures(note, [key])) == 1
    else:
        with pytest.raises(RefusedError, match="does not hold"):
            verify_signatures(note, [key])
