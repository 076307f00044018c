"""Of a claim on an endpoint the verifier process says what to ask, and counts what was answered."""

import dataclasses
from pathlib import Path

import pytest
import torch
from asked import COUNT, KEY, margin_evidence
from jobs import evidence_bytes, job
from marked import make_marked

import wm
from node.verifier.protocol import Job
from node.verifier.questions import Questions, decode_reply
from node.verifier.worker import answer
from registry.policy import Thresholds
from registry.verdict import Outcome, Statistic, judge

pytestmark = pytest.mark.long


def on_endpoint(tmp_path: Path, evidence: bytes | None = None, **changes: object) -> Job:
    content = margin_evidence(tmp_path / "margin").read_bytes() if evidence is None else evidence
    known = {"scheme": "margin", "watermark_key": KEY, "model_path": "", "controls": 1, **changes}
    return job(tmp_path, evidence=content, **known)


def test_the_pictures_of_the_evidence_are_wanted_as_their_bytes(tmp_path: Path):
    first = on_endpoint(tmp_path)
    questions = answer(first, device="cpu")
    assert isinstance(questions, Questions)
    assert decode_reply(questions.encode()) == questions
    triggers = wm.class_triggers(Path(first.evidence_path), KEY)
    shape = questions.pictures.shape
    assert (len(questions.pictures), shape.channels, shape.height, shape.width) == (COUNT, 3, 32, 32)
    assert b"".join(questions.pictures.pixels) == triggers.pixels.numpy().tobytes()
    assert questions.has_margin


def test_answers_as_the_key_demands_are_all_counted_and_others_by_chance(tmp_path: Path):
    first = on_endpoint(tmp_path)
    demanded = wm.class_triggers(Path(first.evidence_path), KEY).labels.tolist()
    found = answer(dataclasses.replace(first, answers=tuple(demanded)), device="cpu")
    assert (found.measurement.matched, found.measurement.total, found.device) == (COUNT, COUNT, "endpoint")
    assert (found.measurement.statistic, len(found.measurement.controls)) == (Statistic.CLASSES, 1)
    assert judge(found.measurement, dataclasses.replace(Thresholds(), controls_min=1))[0] is Outcome.VERIFIED
    chance = torch.randint(0, 10, (COUNT,), generator=torch.Generator().manual_seed(2)).tolist()
    missed = answer(dataclasses.replace(first, answers=tuple(chance)), device="cpu")
    assert missed.measurement.matched < COUNT // 3
    assert judge(missed.measurement, Thresholds())[0] is Outcome.REFUTED


def test_answers_that_are_not_as_many_as_the_pictures_count_nothing(tmp_path: Path):
    found = answer(on_endpoint(tmp_path, answers=(1,) * (COUNT - 1)), device="cpu")
    assert (found.outcome, found.measurement) == (Outcome.UNVERIFIABLE, None)


def test_a_scheme_that_reads_the_inside_of_a_network_has_nothing_to_ask(tmp_path: Path):
    (tmp_path / "marked").mkdir()
    marked = make_marked(tmp_path / "marked", KEY)
    white = on_endpoint(tmp_path, marked.evidence.read_bytes(), scheme="mtlsign")
    settled = answer(white, device="cpu")
    assert (settled.outcome, settled.reason) == (Outcome.UNVERIFIABLE, "white_box")


@pytest.mark.parametrize(
    ("changes", "outcome", "reason"),
    [
        ({"evidence_sha256": b"x" * 32}, Outcome.UNVERIFIABLE, "hash_mismatch"),
        ({"head_commitment": b"x" * 32}, Outcome.REFUTED, "head_mismatch"),
        ({"scheme": "fragile"}, Outcome.REFUTED, "info_mismatch"),
        ({"evidence": b"\xff" * 100}, Outcome.UNVERIFIABLE, "malformed"),
        ({"evidence": evidence_bytes(scheme="margin")}, Outcome.UNVERIFIABLE, "malformed"),
    ],
)
def test_what_the_owner_committed_to_is_checked_before_anything_is_asked(
    tmp_path: Path, changes: dict[str, object], outcome: Outcome, reason: str
):
    settled = answer(on_endpoint(tmp_path, **changes), device="cpu")
    assert (settled.outcome, settled.reason) == (outcome, reason)
