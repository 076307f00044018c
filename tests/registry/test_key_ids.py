"""A signature line names its key by 4 bytes of a hash; two keys with the same 4 bytes under one name are refused."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakes import ORIGIN, START_S, member, policy, private_key, refused

from registry.entry import Entry
from registry.envelope import seal
from registry.errors import MalformedError
from registry.messages import Genesis, PolicyChange
from registry.note import KeyType, VerifierKey
from registry.rules import Accepted, Ledger
from registry.trust import TrustPolicy

# Found by making keys until two had one ID, which takes some ten thousand; it is so under ORIGIN alone.
COLLIDING = [
    Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed)).public_key().public_bytes_raw()
    for seed in (
        "4f4e6d38152e7bcda4794c54428bcf5a884b075c6025f59e3bbb8a4975bb930d",
        "d644d2470ed4db4f791ed54b22e17cf701b3e012160a4cfd19d453c39f34df01",
    )
]
TWINS = [replace(member(f"node-{n}", port=4000 + 2 * n), note_key=COLLIDING[n - 1]) for n in (1, 2)]


def log_key(public_key, name=ORIGIN):
    return VerifierKey(name=name, type=KeyType.ED25519, public_key=public_key)


def test_the_two_keys_have_one_id_under_one_name_only():
    assert log_key(COLLIDING[0]).key_id == log_key(COLLIDING[1]).key_id
    assert log_key(COLLIDING[0], "elsewhere").key_id != log_key(COLLIDING[1], "elsewhere").key_id


def test_a_trust_policy_with_two_keys_of_one_id_is_refused():
    for key in COLLIDING:
        TrustPolicy.parse(f"log {log_key(key)}\nquorum none\n")
    with pytest.raises(MalformedError, match="key ID"):
        TrustPolicy.parse(f"log {log_key(COLLIDING[0])}\nlog {log_key(COLLIDING[1])}\nquorum none\n")
    TrustPolicy.parse("".join(f"log {log_key(key, 'elsewhere')}\n" for key in COLLIDING) + "quorum none\n")


@pytest.mark.parametrize(("members", "origin"), [(TWINS, ORIGIN), (TWINS, "elsewhere"), (TWINS[:1], ORIGIN)])
def test_a_ledger_does_not_begin_with_two_keys_of_one_id(members, origin):
    genesis = Genesis(
        time_s=START_S, origin=origin, policy=replace(policy(1), members=tuple(members), quorum=len(members))
    )
    keys = [private_key(f"{one.name}/signing") for one in members]
    applied = Ledger().apply(Entry(seal(genesis, origin=origin, private_keys=keys), START_S).encode())
    if len(members) == 2 and origin == ORIGIN:
        assert refused(applied) == "key_id_taken"
    else:
        assert isinstance(applied, Accepted)


def test_a_member_does_not_get_a_key_with_the_id_of_anothers(maker):
    def change(policy):
        message = PolicyChange(time_s=START_S, previous=maker.ledger.policy_hashes[-1], policy=policy)
        return maker.ledger.apply(Entry(maker.seal(message, "node-1/signing", "node-2/signing"), START_S).encode())

    first, second = (replace(one, note_key=key) for one, key in zip(maker.policy.members[:2], COLLIDING, strict=True))
    kept, third = maker.policy.members[1:]
    assert isinstance(change(replace(maker.policy, members=(first, kept, third))), Accepted)
    assert refused(change(replace(maker.policy, members=(first, second, third)))) == "key_id_taken"
