"""An upload that nobody claims does not stay for good; one that is claimed, or uploaded again, does."""

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import safetensors
from fakes import private_key, public_key
from nodeset import ORIGIN, NodeSet, claim, publication, sealed, vote_message

from node.blobs import BlobLimits
from node.sweeper import Sweeper, Uploads
from registry import signing
from registry.envelope import message_hash
from registry.evidence import FORMAT
from registry.verdict import Outcome

AGE_MAX_S = 1000


class Clock:
    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


async def upload(nodes: NodeSet, content: bytes) -> bytes:
    async def whole() -> AsyncIterator[bytes]:
        yield content

    digest = hashlib.sha256(content).digest()
    await nodes.nodes[0].services.blobs.add(digest, whole(), bytes_max=1000)
    return digest


def sweeper(nodes: NodeSet, clock: Clock) -> Sweeper:
    services = nodes.nodes[0].services
    return Sweeper(services.blobs, services.ledger.store, age_max_s=AGE_MAX_S, clock=clock)


async def test_an_upload_is_removed_when_it_is_old_and_no_claim_names_it(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        clock, blobs = Clock(), nodes.nodes[0].services.blobs
        sweeping = sweeper(nodes, clock)
        model, evidence, junk = [await upload(nodes, content) for content in (b"model", b"evidence", b"junk")]
        clock.ahead_s = AGE_MAX_S - 500
        sweeping.sweep()
        assert blobs.bytes_total == len(b"model" + b"evidence" + b"junk")
        published = publication()
        for envelope in (published, claim(published, model_sha256=model, evidence_sha256=evidence)):
            await nodes.nodes[0].ledger.submit(envelope, timeout_s=30)
        clock.ahead_s = AGE_MAX_S + 500
        sweeping.sweep()
        assert (blobs.find(junk), blobs.bytes_total) == (None, len(b"model" + b"evidence"))
        assert blobs.find(model)
        assert blobs.find(evidence)


async def test_a_base_stays_that_the_evidence_of_a_claim_declares(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        clock, blobs = Clock(), nodes.nodes[0].services.blobs
        base, other = [await upload(nodes, content) for content in (b"base", b"another base")]
        info = json.dumps({"base_sha256": base.hex()}, separators=(",", ":"))
        metadata = {"format": FORMAT, "salt": "00" * 32, "info": info}
        evidence = await upload(nodes, safetensors.serialize({}, metadata))
        published = publication()
        for envelope in (published, claim(published, model_sha256=evidence, evidence_sha256=evidence)):
            await nodes.nodes[0].ledger.submit(envelope, timeout_s=30)
        store = uploads(nodes, total_bytes_max=len(b"base") + blobs.find(evidence).stat().st_size)
        store.make_room(1)
        clock.ahead_s = AGE_MAX_S + 500
        sweeper(nodes, clock).sweep()
        assert (bool(blobs.find(base)), blobs.find(other)) == (True, None)


async def test_an_upload_that_is_wanted_again_is_young_again(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        clock, blobs = Clock(), nodes.nodes[0].services.blobs
        old, wanted = [await upload(nodes, content) for content in (b"old", b"wanted")]
        for digest in (old, wanted):
            _make_older(blobs.find(digest), AGE_MAX_S + 500)
        blobs.touch(wanted)
        sweeper(nodes, clock).sweep()
        assert (blobs.find(old), bool(blobs.find(wanted))) == (None, True)


def uploads(nodes: NodeSet, *, total_bytes_max: int) -> Uploads:
    """The store of a node whose uploads may have so many bytes."""
    node = nodes.nodes[0]
    limits = BlobLimits(blob_bytes_max=1000, total_bytes_max=total_bytes_max)
    return Uploads(node.services.blobs.directory, limits, store=node.ledger.store, clock=time.time)


async def test_a_full_store_makes_room_but_not_of_what_an_open_claim_names(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        node = nodes.nodes[0]
        decided, opened, junk, newer = [await upload(nodes, b"%d" % number * 100) for number in range(4)]
        for age_s, digest in enumerate((newer, junk, opened, decided)):
            _make_older(node.services.blobs.find(digest), 10 * age_s)
        for number, digest in enumerate((decided, opened)):
            published = publication(number=number)
            claimed = claim(published, number=number, model_sha256=digest, evidence_sha256=digest)
            for envelope in (published, claimed):
                await node.ledger.submit(envelope, timeout_s=30)
            if digest == decided:
                vote = vote_message(nodes, message_hash(claimed), outcome=Outcome.UNVERIFIABLE, reason="timeout")
                await node.ledger.submit(sealed(vote, node.identity.signing), timeout_s=30)
        blobs = uploads(nodes, total_bytes_max=500)
        gone = []
        for wanted_bytes in (100, 200, 300, 400, 500):
            blobs.make_room(wanted_bytes)
            gone.append([digest for digest in (decided, opened, junk, newer) if blobs.find(digest) is None])
        assert gone == [[], [junk], [junk, newer], [decided, junk, newer], [decided, junk, newer]]
        assert blobs.free_bytes == 400


async def test_an_owner_can_upload_although_another_has_filled_the_store(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        node = nodes.nodes[0]
        node.services = dataclasses.replace(node.services, blobs=uploads(nodes, total_bytes_max=1000))
        await nodes.serve()
        for content in (b"a" * 1000, b"b" * 900):
            message = signing.blob_upload(ORIGIN, hashlib.sha256(content).digest(), len(content))
            headers = {"Wmreg-Signer": public_key("alice").hex()}
            headers["Wmreg-Signature"] = signing.sign(private_key("alice"), message).hex()
            url = f"{node.url}/v1/blobs/{hashlib.sha256(content).hexdigest()}"
            async with nodes.session.put(url, data=content, headers=headers) as answer:
                assert answer.status == 201
        assert node.services.blobs.bytes_total == 900


def _make_older(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)
