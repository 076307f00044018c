"""Promises: a vote that the claim's own files contradict is named with both numbers; what cannot be had is a remark."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import pytest
from fakes import LedgerMaker, binding, good_measurement, with_control
from marked import make_marked
from nodeset import FAKE_WORKER, ORIGIN, NodeSet, claim, publication, sealed, vote_message

from client.api import open_ledger
from client.audit.auditing import Audit, audit_ledger
from client.audit.mirror import Mirror
from client.audit.recomputing import Recomputation, compare
from client.audit.sampling import Sample
from client.memory import Memory
from client.transport import Timing
from node.init import ClusterOptions
from node.verifier.protocol import Answer, unmeasured
from registry.endpoint import endpoint_pointer, endpoint_sha256
from registry.envelope import message_hash
from registry.evidence import parse_evidence
from registry.messages import Publication
from registry.policy import Thresholds
from registry.verdict import ControlCounts, ControlKind, Measurement, Outcome, Statistic, judge

CLAIMS = [bytes([number]) * 32 for number in range(100)]
ALL = Sample(share=Fraction(1), seed=7)


@pytest.mark.parametrize(("share", "count"), [("1/100", 1), ("1/1000000", 1), ("1/3", 34), ("1", 100)])
def test_a_share_of_the_claims_is_drawn_and_one_at_least(share, count):
    drawn = Sample(share=Fraction(share), seed=1).draw(CLAIMS)

    assert len(set(drawn)) == count
    assert set(drawn) <= set(CLAIMS)


def test_the_seed_alone_says_which_claims():
    draws = [Sample(share=Fraction(1, 10), seed=seed).draw(CLAIMS) for seed in (1, 1, 2)]

    assert draws[0] == draws[1] != draws[2]
    assert Sample(share=Fraction(1), seed=1).draw([]) == []


def measured(matched: int) -> Answer:
    return Answer(
        measurement=good_measurement(matched), outcome=None, reason="", detail="", device="cpu", software="test"
    )


@pytest.mark.parametrize(
    ("answer", "differs"),
    [
        (measured(590), False),
        (measured(593), False),
        (measured(587), False),
        (measured(594), True),
        (measured(586), True),
        (measured(300), True),
        (unmeasured(Outcome.REFUTED, "head_mismatch"), True),
    ],
)
def test_counts_that_devices_may_explain_are_no_finding_and_others_are(answer, differs):
    maker, remarks = LedgerMaker(), []
    digest = maker.claim("alice", maker.publish("alice"))
    maker.vote(2, digest, measurement=good_measurement(590))

    found = list(compare(maker.ledger.claim_state(digest), answer, remarks))

    assert [(one.code, one.where) for one in found] == ([("vote_differs", "entry 3")] if differs else [])
    assert remarks == []
    if differs:
        assert "node-2 voted VERIFIED (matched, 590 of 600 triggers); the same files give" in found[0].what
        assert "--seed" in found[0].remedy


@pytest.mark.parametrize(
    ("here", "differs"),
    [
        (good_measurement(421), False),  # enough as it is, on this device
        (good_measurement(423), True),
        (replace(good_measurement(600), aligned=True, matched_unaligned=419), False),
        (replace(good_measurement(590), aligned=True, matched_unaligned=419), True),
        (replace(good_measurement(600), aligned=True), False),
    ],
)
def test_devices_that_disagree_whether_to_align_are_compared_by_the_count_before(here, differs):
    maker = LedgerMaker()
    digest = maker.claim("alice", maker.publish("alice"))
    maker.vote(2, digest, measurement=replace(good_measurement(600), aligned=True, matched_unaligned=418))

    found = list(compare(maker.ledger.claim_state(digest), replace(measured(600), measurement=here), []))

    assert bool(found) is differs


@pytest.mark.parametrize(
    ("outcome", "reason", "found", "remarked"),
    [
        (Outcome.UNVERIFIABLE, "unreachable", 0, 1),
        (Outcome.UNVERIFIABLE, "malformed", 1, 0),
        (Outcome.REFUTED, "head_mismatch", 1, 0),
    ],
)
def test_a_vote_that_says_nothing_of_the_files_is_a_remark(outcome, reason, found, remarked):
    maker, remarks = LedgerMaker(), []
    digest = maker.claim("alice", maker.publish("alice"))
    maker.vote(2, digest, outcome=outcome, reason=reason)

    assert len(list(compare(maker.ledger.claim_state(digest), measured(590), remarks))) == found
    assert len(remarks) == remarked


@pytest.mark.parametrize(
    ("outcome", "reason", "found"),
    [(Outcome.REFUTED, "shared_ancestor", 0), (Outcome.VERIFIED, "matched", 0)],
)
def test_public_models_of_a_node_are_its_own_word_and_the_rest_of_its_vote_is_compared(outcome, reason, found):
    for count, apart in ((590, 0), (300, 1)):
        maker, remarks = LedgerMaker(), []
        digest = maker.claim("alice", maker.publish("alice"))
        voted = with_control(good_measurement(590), ControlKind.PUBLIC, 580 if outcome is Outcome.REFUTED else 300)
        maker.vote(2, digest, measurement=voted, outcome=outcome, reason=reason)

        findings = list(compare(maker.ledger.claim_state(digest), measured(count), remarks))

        assert len(findings) == found + apart
        assert "node-2 has 1 public models, which cannot be counted again here" in remarks[0]


def calibrated(chance_ppm: int, *publics: int) -> Measurement:
    """All of 100 triggers, beside three null models that match 20, and public ones."""
    kinds = [
        *[(ControlKind.FRESH, 10)] * 8,
        *[(ControlKind.NULL, 20)] * 3,
        *[(ControlKind.PUBLIC, it) for it in publics],
    ]
    controls = tuple(
        ControlCounts(kind=kind, matched=count, suspect_only=100 - count, control_only=0) for kind, count in kinds
    )
    return Measurement(matched=100, total=100, controls=controls, statistic=Statistic.CALIBRATED, chance_ppm=chance_ppm)


def test_a_chance_that_a_nodes_public_model_raised_is_no_finding():
    maker, voted, here = LedgerMaker(), calibrated(930_000, 80), calibrated(360_000)
    assert judge(voted, Thresholds())[0] is not judge(here, Thresholds())[0]
    digest = maker.claim("alice", maker.publish("alice"))
    outcome, reason = judge(voted, Thresholds())
    maker.vote(2, digest, measurement=voted, outcome=outcome, reason=reason)
    answer = replace(measured(590), measurement=here)

    assert list(compare(maker.ledger.claim_state(digest), answer, [])) == []


@dataclass(frozen=True)
class Files:
    """What a claim points at."""

    model: bytes = b"590 right"
    evidence: bytes = b"evidence"

    async def upload(self, nodes: NodeSet) -> None:
        for content in (self.model, self.evidence):
            digest = hashlib.sha256(content).digest()
            await nodes.nodes[1].services.blobs.add(digest, _chunks(content), bytes_max=2**30)


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def voted_claim(
    nodes: NodeSet, files: Files, *matched: int, number: int = 0, published: bytes = b"", endpoint: str = ""
) -> None:
    """Publish, claim a file or an endpoint, and let nodes vote these counts."""
    published = published or publication(number=number)
    hashes = [hashlib.sha256(content).digest() for content in (files.model, files.evidence)]
    envelope = claim(
        published,
        number=number,
        model_pointer=endpoint_pointer(endpoint) if endpoint else f"blob:sha256:{hashes[0].hex()}",
        model_sha256=endpoint_sha256(endpoint) if endpoint else hashes[0],
        evidence_pointer=f"blob:sha256:{hashes[1].hex()}",
        evidence_sha256=hashes[1],
    )
    for message in (published, envelope):
        await nodes.nodes[0].ledger.submit(message, timeout_s=5)
    for node, count in zip(nodes.nodes, matched, strict=False):
        vote = vote_message(nodes, message_hash(envelope), measurement=good_measurement(count))
        await nodes.nodes[0].ledger.submit(sealed(vote, node.identity.signing), timeout_s=5)


async def audited(nodes: NodeSet, directory: Path, command: tuple[str, ...] | None, sample: Sample = ALL) -> Audit:
    recomputation = Recomputation(sample=sample, directory=directory / "files", urls=nodes.trust.urls, command=command)
    async with open_ledger(nodes.trust, Timing(patience_s=5)) as api:
        memory = Memory(directory / "memory")
        return await audit_ledger(api, memory, Mirror(directory / "mirror"), recomputation=recomputation)


def told(audit: Audit) -> list[tuple[str, str]]:
    return [(finding.code, finding.where) for finding in audit.findings]


def test_votes_that_the_claims_files_bear_out_are_no_finding_and_a_liar_is_named(tmp_path: Path):
    async def play() -> tuple[Audit, Audit, Audit]:
        async with NodeSet(tmp_path / "ledger") as nodes:
            await nodes.serve()
            await Files().upload(nodes)
            await voted_claim(nodes, Files(), 590, 592, 588)
            honest = await audited(nodes, tmp_path, FAKE_WORKER)
            await voted_claim(nodes, Files(), 590, 600, number=1)
            caught = await audited(nodes, tmp_path, FAKE_WORKER)
            drawn = await audited(nodes, tmp_path, FAKE_WORKER, Sample(share=Fraction(1, 100), seed=3))
            return honest, caught, drawn

    honest, caught, drawn = asyncio.run(play())

    assert (told(honest), honest.remarks, honest.recomputed, honest.seed) == ([], [], 1, 7)
    assert (told(caught), caught.recomputed) == ([("vote_differs", "entry 9")], 2)
    assert "node-2 voted VERIFIED (matched, 600 of 600 triggers)" in caught.findings[0].what
    assert "590 of 600 triggers" in caught.findings[0].what
    assert (drawn.recomputed, drawn.seed) == (1, 3)
    assert [path for path in (tmp_path / "files").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("model", "command", "remark"),
    [
        (b"590 lost", FAKE_WORKER, "its files cannot be had"),
        (b"crash", FAKE_WORKER, "could not be computed again on this machine: crashed"),
        (b"590 right", ("false",), "were not computed again: the verifier process did not start"),
    ],
)
def test_what_cannot_be_computed_again_is_a_remark(tmp_path: Path, model, command, remark):
    async def play() -> Audit:
        async with NodeSet(tmp_path / "ledger") as nodes:
            await nodes.serve()
            if b"lost" not in model:
                await Files(model=model).upload(nodes)
            await voted_claim(nodes, Files(model=model), 590, 590)
            return await audited(nodes, tmp_path, command)

    audit = asyncio.run(play())

    assert (told(audit), audit.recomputed) == ([], 0)
    assert [one for one in audit.remarks if remark in one] == audit.remarks


def test_an_endpoint_is_not_asked_again(tmp_path: Path):
    async def play() -> Audit:
        async with NodeSet(tmp_path / "ledger") as nodes:
            await nodes.serve()
            await Files().upload(nodes)
            await voted_claim(nodes, Files(), 590, 590, endpoint="https://models.example/v2/models/m")
            await voted_claim(nodes, Files(), 590, 590, number=1)
            return await audited(nodes, tmp_path, FAKE_WORKER)

    audit = asyncio.run(play())

    assert (told(audit), audit.recomputed) == ([], 1)
    assert len(audit.remarks) == 1
    assert "is on an endpoint, which nobody can ask again as it was" in audit.remarks[0]


def test_a_ledger_without_votes_has_nothing_to_compute_again(wmreg, ledger, alice, publish):
    publish(alice)

    found = wmreg("audit", "--recompute", "1%", "--seed", "5", "--policy", ledger.policy_path, "--json")

    assert (found.code, found.document["claims_recomputed"], found.document["seed"]) == (0, 0, 5)
    told = wmreg("audit", "--recompute", "100%", "--policy", ledger.policy_path)
    assert "0 claims again (--seed " in told.out


@pytest.mark.parametrize(
    "words",
    [
        ("--recompute", "0%"),
        ("--recompute", "101%"),
        ("--recompute", "0.5"),
        ("--recompute", "nan%"),
        ("--seed", "5"),
        ("--recompute", "1%", "--offline", "--mirror", "mirror"),
    ],
)
def test_what_cannot_be_meant_is_a_mistake_of_usage(wmreg, ledger, words):
    assert wmreg("audit", "--policy", ledger.policy_path, *words).code == 2


@pytest.mark.slow
def test_a_marked_model_is_verified_again_and_a_vote_that_counted_otherwise_is_named(tmp_path: Path):
    key = binding("alice", origin=ORIGIN, number=0).watermark_key
    marked = make_marked(tmp_path, key)
    files = Files(marked.model.read_bytes(), marked.evidence.read_bytes())
    parsed = parse_evidence(files.evidence)
    options = ClusterOptions(thresholds=Thresholds(permutations_min=99, permutation_p_permille=10))

    async def play() -> Audit:
        async with NodeSet(tmp_path / "ledger", options=options, blob_bytes_max=2**28) as nodes:
            await nodes.serve()
            await files.upload(nodes)
            published = _published(parsed.head_commitment, parsed.info_commitment)
            await voted_claim(nodes, files, 600, 590, published=published)
            return await audited(nodes, tmp_path, None)

    audit = asyncio.run(play())

    assert (told(audit), audit.remarks, audit.recomputed) == ([("vote_differs", "entry 4")], [], 1)
    assert "the same files give VERIFIED (matched, 600 of 600 triggers)" in audit.findings[0].what


def _published(head: bytes, info: bytes) -> bytes:
    """Alice's publication of what was made for her first watermark key."""
    maker = LedgerMaker(origin=ORIGIN)
    message: Publication = maker.publication_message("alice")
    message = replace(message, time_s=int(time.time()), head_commitment=head, info_commitment=info)
    return maker.seal(message, "alice")
