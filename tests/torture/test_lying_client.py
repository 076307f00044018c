"""A client that lies to every node, under load: each lie is refused by its rule, and nothing of it is in the log."""

import dataclasses
import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster import ORIGIN, Answer, NodeProcess
from fakes import LedgerMaker, binding, policy, private_key, public_key
from torture.arena import Arena, judged_arena
from torture.history import Append
from torture.measured import Measured, count_of

from registry import commitments, signing
from registry.envelope import message_hash, seal, unseal
from registry.messages import Claim, Genesis, Message, PolicyChange, Publication, Withdrawal

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]
AN_HOUR_S = 3600


def sealed(message: Message, signer: str = "pirate", *, origin: str = ORIGIN) -> bytes:
    return seal(message, origin=origin, private_keys=[private_key(signer)])


def taken(a: Arena, node: NodeProcess, envelope: bytes) -> Append:
    """Submit what is no lie, and note it down as the other clients do."""
    invoked_s = time.monotonic()
    answer = node.submit(envelope)
    assert answer.status == 200, answer.body
    append = Append(
        message=message_hash(envelope),
        invoked_s=invoked_s,
        answered_s=time.monotonic(),
        index=answer.json["index"],
    )
    a.load.appends.append(append)
    return append


class Lies:
    """What a pirate says, who has read everything that the owner has published.

    Args:
        owned: the owner's publication.
        own: the pirate's, of the owner's own commitment to a key.
        number: of the owner's watermark key, which a claim has revealed.
        genesis: the ledger's.
    """

    def __init__(self, owned: bytes, own: bytes, *, number: int, genesis: bytes) -> None:
        self.owned, self.own, self.genesis = message_hash(owned), message_hash(own), message_hash(genesis)
        self.policy = unseal(genesis, origin=None).message.policy
        self.binding, self.published = (
            binding("alice", origin=ORIGIN, number=number),
            unseal(own, origin=ORIGIN).message,
        )

    def all(self) -> dict[str, tuple[str, bytes]]:
        """Each lie by its name: the code of its refusal, and what is submitted."""
        fresh = self.fresh()
        vote = LedgerMaker().vote_message(self.owned)
        claim = self.claim(self.owned)
        return {
            "backdated": ("time_skew", sealed(dataclasses.replace(fresh, time_s=fresh.time_s - AN_HOUR_S))),
            "postdated": ("time_skew", sealed(dataclasses.replace(fresh, time_s=fresh.time_s + AN_HOUR_S))),
            "of another ledger": ("bad_signature", sealed(fresh, origin="another.test/wmreg")),
            "in another's name": ("bad_signature", sealed(fresh).replace(public_key("pirate"), public_key("alice"))),
            "the same key again": ("key_commitment_used", sealed(dataclasses.replace(fresh, time_s=fresh.time_s + 1))),
            "a claim by a stranger's publication": ("not_the_publisher", sealed(claim)),
            "a claim with a borrowed key": ("key_not_bound", sealed(self.claim(self.own))),
            "a claim of nothing": ("unknown_publication", sealed(self.claim(b"\x00" * 32))),
            "a stranger's withdrawal": ("not_the_publisher", sealed(self.withdrawal())),
            "a stranger's vote": ("not_a_member", sealed(dataclasses.replace(vote, time_s=fresh.time_s))),
            "a second genesis": (
                "second_genesis",
                sealed(Genesis(time_s=fresh.time_s, origin=ORIGIN, policy=policy())),
            ),
            "a stranger's policy": ("not_a_member", sealed(self.lax(fresh.time_s))),
        }

    def fresh(self) -> Publication:
        return dataclasses.replace(self.published, time_s=int(time.time()))

    def claim(self, publication: bytes) -> Claim:
        digest = hashlib.sha256(b"somebody's model").digest()
        return Claim(
            time_s=int(time.time()),
            publication=publication,
            model_pointer=f"blob:sha256:{digest.hex()}",
            model_sha256=digest,
            evidence_pointer=f"blob:sha256:{digest.hex()}",
            evidence_sha256=digest,
            binding=self.binding,
        )

    def lax(self, time_s: int) -> PolicyChange:
        """A policy by which nearly any time will do."""
        return PolicyChange(
            time_s=time_s, previous=self.genesis, policy=dataclasses.replace(self.policy, time_skew_s=7 * 86400)
        )

    def withdrawal(self) -> Withdrawal:
        return Withdrawal(time_s=int(time.time()), target=self.owned, reason="it is mine")


def test_a_client_that_lies_gets_nothing_into_the_log(tmp_path: Path, measured: Measured):
    number = 10**7
    key = commitments.key_commitment(binding("alice", origin=ORIGIN, number=number).watermark_key)
    message = Publication(
        time_s=int(time.time()),
        scheme="mtlsign",
        key_commitment=key,
        head_commitment=b"h" * 32,
        info_commitment=b"i" * 32,
    )
    with judged_arena(tmp_path, measured, "a lying client", pause_max_s=15) as a:
        owned, own = sealed(message, "alice"), sealed(message)
        first = taken(a, a.cluster.nodes[0], owned)
        taken(a, a.cluster.nodes[1], own)
        lies = Lies(owned, own, number=number, genesis=(a.cluster.nodes[0].directory / "genesis").read_bytes())
        for node in a.cluster.nodes:
            for name, (code, envelope) in lies.all().items():
                answer = node.submit(envelope)
                assert (answer.status, answer.json["error"]["code"]) == (422, code), (name, answer.body)
                a.events += 1
            refused = upload(node, b"a model", hashlib.sha256(b"another").digest(), signer="pirate")
            assert (refused.status, refused.json["error"]["code"]) == (422, "hash_mismatch")
            assert upload(node, b"a model", hashlib.sha256(b"a model").digest(), signer="nobody").status == 422
            assert node.submit(owned).json["index"] == first.index
            a.progress(10)
        for turn in range(count_of(10)):
            race(a, turn)
            a.events += 1


def race(a: Arena, turn: int) -> None:
    """Publish one key at two nodes at once, in two messages: one of them is taken, whichever it is."""
    key = commitments.key_commitment(binding("pirate", origin=ORIGIN, number=turn).watermark_key)
    now_s, nodes = int(time.time()), (a.cluster.nodes[turn % 3], a.cluster.nodes[(turn + 1) % 3])
    messages = [
        Publication(
            time_s=now_s, scheme="mtlsign", key_commitment=key, head_commitment=head * 32, info_commitment=b"i" * 32
        )
        for head in (b"1", b"2")
    ]
    envelopes, invoked_s = [sealed(message) for message in messages], time.monotonic()
    ask: Callable[[NodeProcess, bytes], Answer] = NodeProcess.submit
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(ask, nodes, envelopes))
    assert sorted(answer.status for answer in answers) == [200, 422], [answer.body for answer in answers]
    won = next(number for number, answer in enumerate(answers) if answer.status == 200)
    assert answers[1 - won].json["error"]["code"] == "key_commitment_used"
    append = Append(message=message_hash(envelopes[won]), invoked_s=invoked_s, answered_s=time.monotonic())
    a.load.appends.append(dataclasses.replace(append, index=answers[won].json["index"]))


def upload(node: NodeProcess, content: bytes, digest: bytes, *, signer: str) -> Answer:
    """Upload a file under some hash in the pirate's name."""
    signature = signing.sign(private_key(signer), signing.blob_upload(ORIGIN, digest, len(content)))
    return node.put_blob(
        digest, content, {"Wmreg-Signer": public_key("pirate").hex(), "Wmreg-Signature": signature.hex()}
    )
