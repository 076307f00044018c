"""An upload that nobody claims does not stay for good; one that is claimed, or uploaded again, does."""

import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from nodeset import NodeSet, claim, publication

from node.sweeper import Sweeper

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


async def test_an_upload_that_is_wanted_again_is_young_again(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        clock, blobs = Clock(), nodes.nodes[0].services.blobs
        old, wanted = [await upload(nodes, content) for content in (b"old", b"wanted")]
        for digest in (old, wanted):
            _make_older(blobs.find(digest), AGE_MAX_S + 500)
        blobs.touch(wanted)
        sweeper(nodes, clock).sweep()
        assert (blobs.find(old), bool(blobs.find(wanted))) == (None, True)


def _make_older(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)
