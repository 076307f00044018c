"""The owner alice, towards a cluster of real nodes: uploads, publishes, claims, and checks her receipts offline."""

import hashlib
import time

from cluster import ORIGIN, Cluster
from fakes import binding, private_key, public_key

from registry import commitments, signing
from registry.envelope import message_hash, seal
from registry.messages import Claim, Publication
from registry.receipt import Receipt, verify_receipt


def watermark_key(number: int) -> bytes:
    """Her watermark key of that number."""
    return binding("alice", origin=ORIGIN, number=number).watermark_key


def publication(number: int, *, head: bytes = b"h" * 32, info: bytes = b"i" * 32) -> bytes:
    """The envelope that commits to her watermark key of that number, a head and an info."""
    message = Publication(
        time_s=int(time.time()),
        scheme="mtlsign",
        key_commitment=commitments.key_commitment(watermark_key(number)),
        head_commitment=head,
        info_commitment=info,
    )
    return seal(message, origin=ORIGIN, private_keys=[private_key("alice")])


def accepted(cluster: Cluster, node: int, envelope: bytes) -> int:
    """Submit to a node; check its receipt offline and return the index."""
    answer = cluster.nodes[node].submit(envelope)
    assert answer.status == 200, (answer.body, cluster.nodes[node].log()[-3000:])
    verified = verify_receipt(Receipt.parse(answer.json["receipt"]), cluster.trust)
    assert verified.index == answer.json["index"]
    return verified.index


def claimed(
    cluster: Cluster,
    published: bytes,
    *,
    number: int,
    model: bytes,
    evidence: bytes,
    node: int = 2,
    pointer: str | None = None,
) -> bytes:
    """Claim a model, an upload unless a pointer is given, by that publication through one node; the claim's hash."""
    claim = Claim(
        time_s=int(time.time()),
        publication=message_hash(published),
        model_pointer=pointer or f"blob:sha256:{hashlib.sha256(model).hexdigest()}",
        model_sha256=hashlib.sha256(model).digest(),
        evidence_pointer=f"blob:sha256:{hashlib.sha256(evidence).hexdigest()}",
        evidence_sha256=hashlib.sha256(evidence).digest(),
        binding=binding("alice", origin=ORIGIN, number=number),
    )
    envelope = seal(claim, origin=ORIGIN, private_keys=[private_key("alice")])
    accepted(cluster, node, envelope)
    return message_hash(envelope)


def upload(cluster: Cluster, node: int, content: bytes, *, digest: bytes | None = None) -> int:
    """Upload a file under its hash, or under another one; the status."""
    digest = digest or hashlib.sha256(content).digest()
    signature = signing.sign(private_key("alice"), signing.blob_upload(ORIGIN, digest, len(content)))
    headers = {"Wmreg-Signer": public_key("alice").hex(), "Wmreg-Signature": signature.hex()}
    return cluster.nodes[node].put_blob(digest, content, headers).status
