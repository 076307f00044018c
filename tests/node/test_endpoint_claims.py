"""A claim on an endpoint gets every node's vote: what it answered to that node, or why that counts for nothing."""

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from ballots import until, upload, votes, voting
from endpoints import Endpoint, class_of, classes_answer, pictures, serving
from nodeset import FAKE_WORKER, NodeSet, claim, publication

from node import voting as voting_module
from node.examining import Progress
from node.init import ClusterOptions
from node.verifier.process import VerifierTroubleError
from node.verifier.protocol import Answer, Job
from node.verifier.supervisor import Verifier
from registry.endpoint import endpoint_pointer, endpoint_sha256
from registry.envelope import message_hash
from registry.verdict import Outcome

pytestmark = pytest.mark.long

ASKED = pictures(40)


def make(tmp_path: Path, *, unreachable_retry_s: int = 0) -> NodeSet:
    options = ClusterOptions(unreachable_retry_s=unreachable_retry_s)
    return NodeSet(tmp_path / "ledger", options=options, command=FAKE_WORKER)


async def claim_on(
    nodes: NodeSet, url: str, *, at: int = 3, evidence: bytes = b"evidence", sha256: bytes | None = None
) -> bytes:
    """Publish, give the evidence to the nodes, claim an endpoint; return the claim's hash."""
    for node in nodes.nodes[:at]:
        await upload(node, evidence)
    evidence_sha256, published = hashlib.sha256(evidence).digest(), publication("alice")
    envelope = claim(
        published,
        "alice",
        model_pointer=f"endpoint+{url}",
        model_sha256=sha256 or endpoint_sha256(url),
        evidence_pointer=f"blob:sha256:{evidence_sha256.hex()}",
        evidence_sha256=evidence_sha256,
    )
    for message in (published, envelope):
        await nodes.nodes[0].ledger.submit(message, timeout_s=5)
    return message_hash(envelope)


async def voted(tmp_path: Path, endpoint: Endpoint, **options: object) -> tuple[Outcome, str]:
    """What one node votes on a claim on an endpoint."""
    async with serving(endpoint.app()) as port, make(tmp_path) as nodes:
        await nodes.serve(0)
        digest = await claim_on(nodes, f"http://127.0.0.1:{port}/v2/models/m", at=1, **options)
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, digest))
        return votes(nodes, digest)["node-1"]


async def test_three_nodes_ask_an_endpoint_and_a_verdict_comes_of_it(tmp_path: Path):
    endpoint = Endpoint()
    async with serving(endpoint.app()) as port, make(tmp_path) as nodes:
        await nodes.serve()
        url = f"http://127.0.0.1:{port}/v2/models/m"
        assert endpoint_pointer(url)
        digest = await claim_on(nodes, url)
        async with voting(nodes, 0, 1, 2):
            await until(lambda: len(votes(nodes, digest)) == 3)
        store = nodes.nodes[0].ledger.store
        await until(lambda: store.verdict(digest).outcome is Outcome.VERIFIED)
    assert set(votes(nodes, digest).values()) == {(Outcome.VERIFIED, "matched")}
    vote = store.claim_state(digest).votes["node-2"].signed.message
    assert (vote.measurement.matched, vote.measurement.total, vote.device) == (600, 600, "endpoint")
    shown = [picture for request in endpoint.requests for picture in request]
    assert endpoint.looked == 3
    assert all(shown.count(picture) >= 3 for picture in ASKED.pixels)


async def test_an_endpoint_without_the_mark_is_refuted(tmp_path: Path):
    other = Endpoint(answer=lambda shown: classes_answer([(class_of(picture) + 1) % 10 for picture in shown]))
    assert await voted(tmp_path, other) == (Outcome.REFUTED, "below_threshold")


async def test_an_endpoint_that_contradicts_itself_is_unverifiable(tmp_path: Path):
    chance = random.Random(1)
    liar = Endpoint(answer=lambda shown: classes_answer([chance.randrange(10) for _ in shown]))
    assert await voted(tmp_path, liar) == (Outcome.UNVERIFIABLE, "inconsistent")


async def test_an_endpoint_that_refuses_or_takes_other_pictures_is_unverifiable(tmp_path: Path):
    locked = Endpoint(answer=lambda _: web.Response(status=401))
    assert await voted(tmp_path / "locked", locked) == (Outcome.UNVERIFIABLE, "refused")
    other = Endpoint()
    other.metadata["inputs"][0]["shape"] = [-1, 3, 224, 224]
    assert await voted(tmp_path / "other", other) == (Outcome.UNVERIFIABLE, "wrong_input")
    assert other.requests == []


@pytest.mark.parametrize(("evidence", "reason"), [(b"white", "white_box"), (b"crash", "crashed")])
async def test_an_endpoint_is_not_asked_if_there_is_nothing_to_ask(tmp_path: Path, evidence: bytes, reason: str):
    endpoint = Endpoint()
    assert await voted(tmp_path, endpoint, evidence=evidence) == (Outcome.UNVERIFIABLE, reason)
    assert endpoint.requests == []


async def test_an_endpoint_that_is_down_is_waited_for_and_one_that_stays_so_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(voting_module, "RETRY_S", 0.05)
    answers = [503, 503, 200]

    class Starting(Endpoint):
        async def _look(self, request: web.Request) -> web.StreamResponse:
            status = answers.pop(0) if answers else 200
            return await super()._look(request) if status == 200 else web.Response(status=status)

    async with serving(Starting().app()) as port, make(tmp_path / "starting", unreachable_retry_s=60) as nodes:
        await nodes.serve(0)
        digest = await claim_on(nodes, f"http://127.0.0.1:{port}/v2/models/m", at=1)
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, digest))
        assert votes(nodes, digest)["node-1"] == (Outcome.VERIFIED, "matched")
    assert await voted(tmp_path / "down", Endpoint(metadata=web.Response(status=503))) == (
        Outcome.UNVERIFIABLE,
        "unreachable",
    )


async def test_answers_that_cannot_be_counted_now_are_counted_later_and_nobody_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    endpoint, real, tries = Endpoint(), Verifier.verify, []

    async def verify(self: Verifier, job: Job, *, on_begun: Callable[[], None]) -> Answer:
        tries.append(len(endpoint.requests))
        if len(tries) < 3:
            raise VerifierTroubleError("the device is full")
        return await real(self, job, on_begun=on_begun)

    monkeypatch.setattr(Verifier, "verify", verify)
    monkeypatch.setattr(voting_module, "TROUBLE_AGAIN_S", 0.05)
    assert await voted(tmp_path, endpoint) == (Outcome.VERIFIED, "matched")
    assert tries == [len(endpoint.requests)] * 3
    assert endpoint.looked == 1


async def test_while_an_endpoint_is_asked_that_is_shown(tmp_path: Path):
    seen = set()

    async def slow(shown: list[bytes]) -> web.Response:
        seen.add(nodes.nodes[0].services.voter.progress(digest))
        return classes_answer([class_of(picture) for picture in shown])

    async with serving(Endpoint(answer=slow).app()) as port, make(tmp_path) as nodes:
        await nodes.serve(0)
        digest = await claim_on(nodes, f"http://127.0.0.1:{port}/v2/models/m", at=1)
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, digest))
    assert seen == {Progress.ASKING}


@pytest.mark.parametrize(
    ("url", "sha256", "reason"),
    [
        ("https://models.example/v2/models/m/", None, "unsupported_pointer"),
        ("https://Models.example/v2/models/m", None, "unsupported_pointer"),
        ("https://models.example/v2/models/m", b"x" * 32, "hash_mismatch"),
    ],
)
async def test_a_claim_whose_pointer_and_hash_do_not_belong_together_is_unverifiable(
    tmp_path: Path, url: str, sha256: bytes | None, reason: str
):
    async with make(tmp_path) as nodes:
        await nodes.serve(0)
        digest = await claim_on(nodes, url, at=1, sha256=sha256)
        async with voting(nodes, 0):
            await until(lambda: votes(nodes, digest))
        assert votes(nodes, digest)["node-1"] == (Outcome.UNVERIFIABLE, reason)
