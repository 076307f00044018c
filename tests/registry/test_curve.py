"""A public key is a point that one party alone can sign for; the curve is computed a second time here, step by step."""

from dataclasses import replace

import pytest
from fakes import START_S, LedgerMaker, member, policy, private_key, public_key, refused
from hypothesis import given
from hypothesis import strategies as st

from registry.curve import is_for_everybody, is_public_key
from registry.encoding import encode
from registry.errors import MalformedError
from registry.messages import Rotation
from registry.note import KeyType, VerifierKey
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
    return (x * v + u * y) * pow(1 + both, P - 2, P) % P, (y * v + x * u) * pow(1 - both, P - 2, P) % P


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
