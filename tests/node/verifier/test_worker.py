"""The verifier process settles what it can without the watermark library, and survives what is not a crash."""

import asyncio
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from asked import KEY, SMALL, fragile_evidence
from fakes import good_measurement
from jobs import evidence_bytes, job, on_files
from marked import MarkedFiles, centred_at, declaring, make_demanding, make_marked
from nodeset import JOB
from safetensors.numpy import load, save

from node.config import VerifierSettings
from node.verifier import landlock
from node.verifier.process import WorkerProcess, worker_command
from node.verifier.protocol import EXIT_TROUBLE, READY, Answer, Job, frame, unmeasured
from node.verifier.supervisor import Verifier, VerifierTroubleError
from node.verifier.worker import _blame_others, _usable_public, answer, serve, steady
from registry.errors import MalformedError
from registry.verdict import ControlCounts, ControlKind, Outcome
from wm.architectures import build
from wm.weights import save_weights

pytestmark = pytest.mark.long


def _has_landlock() -> bool:
    try:
        return landlock.abi() > 0
    except OSError:
        return False


needs_landlock = pytest.mark.skipif(not _has_landlock(), reason="this kernel has no Landlock")


def control(matched: int, kind: ControlKind = ControlKind.FRESH) -> ControlCounts:
    return ControlCounts(kind=kind, matched=matched, suspect_only=300, control_only=0)


@pytest.mark.parametrize(
    ("changes", "outcome", "reason"),
    [
        ({"model_sha256": b"x" * 32}, Outcome.UNVERIFIABLE, "hash_mismatch"),
        ({"evidence_sha256": b"x" * 32}, Outcome.UNVERIFIABLE, "hash_mismatch"),
        ({"model_bytes_max": 5}, Outcome.UNVERIFIABLE, "too_large"),
        ({"evidence_bytes_max": 5}, Outcome.UNVERIFIABLE, "too_large"),
        ({"evidence": b"\x80\x04pickle"}, Outcome.UNVERIFIABLE, "malformed"),
        ({"evidence": b"\xff" * 100}, Outcome.UNVERIFIABLE, "malformed"),
        ({"head_commitment": b"x" * 32}, Outcome.REFUTED, "head_mismatch"),
        ({"info_commitment": b"x" * 32}, Outcome.REFUTED, "info_mismatch"),
        ({"scheme": "margin"}, Outcome.REFUTED, "info_mismatch"),
        ({"evidence": evidence_bytes(scheme="")}, Outcome.UNVERIFIABLE, "malformed"),
    ],
)
def test_what_can_be_settled_without_the_model_is(
    tmp_path: Path, changes: dict[str, object], outcome: Outcome, reason: str
):
    settled = answer(job(tmp_path, **changes), device="cpu")
    assert (settled.outcome, settled.reason, settled.measurement) == (outcome, reason, None)


def test_evidence_that_the_scheme_cannot_read_is_unverifiable(tmp_path: Path):
    settled = answer(job(tmp_path), device="cpu")
    assert (settled.outcome, settled.reason) == (Outcome.UNVERIFIABLE, "malformed")


def test_evidence_of_integrity_that_accuses_the_very_file_that_it_names_is_unverifiable(tmp_path: Path):
    save_weights(build(SMALL, seed=1), tmp_path / "published")
    save_weights(build(SMALL, seed=2), tmp_path / "another")
    published, another = ((tmp_path / name).read_bytes() for name in ("published", "another"))
    evidence = fragile_evidence(tmp_path / "evidence", published).read_bytes()
    known = {"scheme": "fragile", "watermark_key": KEY, "controls": 0}
    own = answer(job(tmp_path, model=published, evidence=evidence, **known), device="cpu")
    assert (own.outcome, own.reason) == (Outcome.UNVERIFIABLE, "malformed")
    assert "contradicts itself" in own.detail
    changed = answer(job(tmp_path, model=another, evidence=evidence, **known), device="cpu")
    assert changed.outcome is None
    assert changed.measurement.matched < changed.measurement.total


@pytest.mark.parametrize("shape", [[2**63, 0], [0, 2**40, 2**40, 3]])
def test_a_suspect_with_a_shape_beyond_all_bounds_is_unverifiable(
    marked: MarkedFiles, tmp_path: Path, shape: list[int]
):
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
    header = json.dumps({"layer1.0.conv1.weight": entry}).encode()
    settled = answer(on_files(marked, tmp_path, model=len(header).to_bytes(8, "little") + header), device="cpu")
    assert (settled.outcome, settled.reason) == (Outcome.UNVERIFIABLE, "malformed")


def test_a_device_that_others_fill_ends_the_process_and_one_that_the_claim_fills_does_not():
    gib = 2**30
    _blame_others((gib, 80 * gib), reserved_bytes=77 * gib + gib // 2)
    with pytest.raises(SystemExit) as ended:
        _blame_others((gib, 80 * gib), reserved_bytes=76 * gib)
    assert ended.value.code == EXIT_TROUBLE


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({}, False),
        ({"matched": 423, "controls": ()}, True),
        ({"matched": 424, "controls": ()}, False),
        ({"matched": 417, "controls": ()}, True),
        ({"matched": 416, "controls": ()}, False),
        ({"matched": 363, "controls": ()}, True),
        ({"matched": 357, "controls": ()}, True),
        ({"matched": 356, "controls": ()}, False),
        ({"permutations_as_good": 1}, True),
        ({"permutations_as_good": 4}, False),
        ({"controls": (control(351),)}, True),
        ({"controls": (control(350),)}, False),
        ({"controls": (control(357),)}, True),
        ({"controls": (control(358),)}, False),
        ({"controls": (control(350), control(354, ControlKind.BASE))}, False),
        ({"aligned": True, "matched_unaligned": 417}, True),
        ({"aligned": True, "matched_unaligned": 416}, False),
        ({"aligned": True, "matched_unaligned": None}, False),
    ],
)
def test_what_a_gpu_finds_near_a_threshold_is_counted_again_on_the_cpu(changes: dict[str, object], again: bool):
    measurement = dataclasses.replace(good_measurement(580), **changes)
    found = Answer(measurement=measurement, outcome=None, reason="", detail="", device="", software="")
    for device, expected in (("cuda", ["cuda", "cpu"] if again else ["cuda"]), ("cpu", ["cpu"])):
        places: list[str] = []

        def measure(place: str, places: list[str] = places) -> Answer:
            places.append(place)
            return dataclasses.replace(found, device=place)

        assert steady(JOB, device, measure).device == expected[-1]
        assert places == expected


def test_what_was_not_measured_on_a_gpu_is_not_measured_on_the_cpu_either():
    lost = unmeasured(Outcome.UNVERIFIABLE, "too_large")
    assert steady(JOB, "cuda", lambda place: lost if place == "cuda" else None) == lost


def test_a_file_that_vanished_is_this_machines_trouble_and_not_an_answer(tmp_path: Path):
    lost = job(tmp_path)
    (tmp_path / "model").unlink()
    with pytest.raises(SystemExit) as ended:
        answer(lost, device="cpu")
    assert ended.value.code == EXIT_TROUBLE


def test_a_job_without_the_base_that_the_evidence_declares_is_this_machines_trouble(tmp_path: Path):
    for evidence, base_path in ((evidence_bytes(base=b"base"), ""), (evidence_bytes(), str(tmp_path / "model"))):
        with pytest.raises(SystemExit) as ended:
            answer(job(tmp_path, evidence=evidence, base_path=base_path), device="cpu")
        assert ended.value.code == EXIT_TROUBLE


def test_a_base_that_has_not_the_declared_hash_is_not_read(tmp_path: Path):
    (tmp_path / "base").write_bytes(b"another")
    settled = answer(
        job(tmp_path, evidence=evidence_bytes(base=b"base"), base_path=str(tmp_path / "base")), device="cpu"
    )
    assert (settled.outcome, settled.reason) == (Outcome.UNVERIFIABLE, "hash_mismatch")


def test_one_job_is_served_and_no_second_one(tmp_path: Path):
    first, second = job(tmp_path, model_bytes_max=5), frame(job(tmp_path).encode())
    jobs = io.BytesIO(frame(first.encode()) + second)
    answers = io.BytesIO()
    serve(jobs, answers, lambda job: answer(job, device="cpu"))
    assert answers.getvalue() == frame(READY) + frame(answer(first, device="cpu").encode())
    assert jobs.read() == second


def test_a_job_that_cannot_be_read_ends_the_process():
    with pytest.raises(MalformedError):
        serve(io.BytesIO(frame(b"nonsense")), io.BytesIO(), lambda job: answer(job, device="cpu"))


@pytest.fixture(scope="session")
def marked(tmp_path_factory: pytest.TempPathFactory) -> MarkedFiles:
    return make_marked(tmp_path_factory.mktemp("marked"), JOB.watermark_key)


@pytest.mark.slow
def test_a_marked_model_matches_and_an_independent_one_is_counted_without_controls(marked: MarkedFiles, tmp_path: Path):
    found = answer(on_files(marked, tmp_path), device="cpu")
    assert (found.measurement.matched, found.measurement.total, found.measurement.permutations) == (600, 600, 19)
    assert [control.kind for control in found.measurement.controls] == [ControlKind.FRESH]
    assert "torch" in found.software
    assert (found.architecture, found.unusable_public) == ("", 0)  # no public models are kept
    other = answer(on_files(marked, tmp_path, model=marked.independent.read_bytes()), device="cpu")
    assert other.measurement.matched < 360
    assert (other.measurement.permutations, other.measurement.controls) == (0, ())


def with_base(marked: MarkedFiles, tmp_path: Path, base: Path) -> Job:
    """A job on the marked model whose evidence declares a base."""
    raw = declaring(marked, base, tmp_path / "declaring").read_bytes()
    changes = {"permutations": 0, "controls": 1, "base_path": str(base)}
    return job(tmp_path, model=marked.model.read_bytes(), evidence=raw, **changes)


@pytest.mark.slow
def test_the_declared_base_is_counted(marked: MarkedFiles, tmp_path: Path):
    found = answer(with_base(marked, tmp_path, marked.independent), device="cpu").measurement.controls
    assert [control.kind for control in found] == [ControlKind.FRESH, ControlKind.BASE]
    assert found[1].matched < 360
    (same,) = answer(with_base(marked, tmp_path, marked.model), device="cpu").measurement.controls[1:]
    assert (same.matched, same.suspect_only, same.control_only) == (600, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"\x80\x04pickle", save({"w": np.zeros(3, np.float32)})])
def test_a_declared_base_that_is_no_such_network_is_unusable(marked: MarkedFiles, tmp_path: Path, content: bytes):
    (tmp_path / "base").write_bytes(content)
    settled = answer(with_base(marked, tmp_path, tmp_path / "base"), device="cpu")
    assert (settled.outcome, settled.reason) == (Outcome.UNVERIFIABLE, "base_unusable")


@pytest.mark.slow
def test_public_models_of_the_architecture_are_counted_and_what_is_none_is_passed_over(
    marked: MarkedFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    public = tmp_path / "public"
    for name, content in (
        ("resnet18/b_same", marked.model.read_bytes()),
        ("resnet18/a_other", marked.independent.read_bytes()),
        ("resnet18/c_small", save({"w": np.zeros(3, np.float32)})),
        ("resnet34/same", marked.model.read_bytes()),
    ):
        (public / name).parent.mkdir(parents=True, exist_ok=True)
        (public / f"{name}.safetensors").write_bytes(content)
    same = on_files(marked, tmp_path, permutations=0)
    answered = answer(same, device="cpu", public=public)
    assert (answered.architecture, answered.unusable_public) == ("resnet18", 1)
    found = [it for it in answered.measurement.controls if it.kind != "fresh"]
    assert [control.kind for control in found] == [ControlKind.PUBLIC] * 2
    assert (found[0].matched < 360, found[1].matched) == (True, 600)
    assert "c_small.safetensors is no control" in capsys.readouterr().err
    (first,), unusable = _usable_public(public, dataclasses.replace(same, controls=31), "resnet18")
    assert (first.name, unusable) == ("a_other.safetensors", 1)
    assert "1 public models of resnet18 are left out" in capsys.readouterr().err
    assert _usable_public(public / "none", same, "resnet18") == ((), 0)
    full = dataclasses.replace(same, controls=32, null_paths=(same.model_path,))
    assert _usable_public(public, full, "resnet18") == ((), 1)


def test_more_controls_than_a_vote_can_list_are_not_run(marked: MarkedFiles, tmp_path: Path):
    beyond = dataclasses.replace(on_files(marked, tmp_path, permutations=0), controls=33)
    answered = answer(beyond, device="cpu")
    assert (answered.outcome, answered.reason) == (Outcome.UNVERIFIABLE, "too_large")
    assert "33 controls" in answered.detail


@pytest.mark.slow
async def test_the_real_process_may_open_the_public_models(marked: MarkedFiles, tmp_path: Path):
    public = tmp_path / "public" / "resnet18"
    public.mkdir(parents=True)
    (public / "same.safetensors").write_bytes(marked.model.read_bytes())
    (public / "none.safetensors").write_bytes(b"nothing of the kind")
    (tmp_path / "cache").mkdir()
    settings = VerifierSettings(
        device="cpu", threads=1, timeout_s=120, memory_bytes_max=2**31, controls_directory=str(public.parent)
    )
    verifier = Verifier(settings, readable=(tmp_path / "cache",))
    try:
        answered = await verifier.verify(on_files(marked, tmp_path / "cache"))
    finally:
        await verifier.stop()
    assert [it.matched for it in answered.measurement.controls if it.kind is ControlKind.PUBLIC] == [600]
    assert verifier.public.unusable == {"resnet18": 1}


@pytest.mark.slow
def test_the_same_job_gives_the_same_numbers(marked: MarkedFiles, tmp_path: Path):
    same = on_files(marked, tmp_path)
    assert answer(same, device="cpu") == answer(same, device="cpu")


@pytest.mark.slow
def test_another_key_is_at_chance(marked: MarkedFiles, tmp_path: Path):
    wrong = answer(on_files(marked, tmp_path, watermark_key=b"w" * 32), device="cpu")
    assert 240 < wrong.measurement.matched < 360


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (b"\x80\x04\x95" + b"pickle" * 100, "malformed"),
        ((2**60).to_bytes(8, "little") + b"{}", "malformed"),
        (save({"w": np.zeros(3, np.float32)}), "wrong_architecture"),
    ],
)
def test_a_model_that_is_none_is_unverifiable(marked: MarkedFiles, tmp_path: Path, model: bytes, reason: str):
    settled = answer(on_files(marked, tmp_path, model=model), device="cpu")
    assert (settled.outcome, settled.reason) == (Outcome.UNVERIFIABLE, reason)


@pytest.mark.slow
def test_a_model_whose_answers_are_not_finite_is_unverifiable(marked: MarkedFiles, tmp_path: Path):
    tensors = load(marked.model.read_bytes())
    tensors["conv1.weight"] = np.full_like(tensors["conv1.weight"], 3e38)
    settled = answer(on_files(marked, tmp_path, model=save(tensors)), device="cpu")
    assert (settled.outcome, settled.reason) == (Outcome.UNVERIFIABLE, "malformed")


@pytest.mark.slow
@pytest.mark.parametrize("value", [3.4e38, 1e-45])
def test_evidence_whose_centre_is_out_of_all_bounds_is_unverifiable_or_counts_by_chance(
    marked: MarkedFiles, tmp_path: Path, value: float
):
    hostile = dataclasses.replace(marked, evidence=centred_at(value, marked, tmp_path / "centred"))
    found = answer(on_files(hostile, tmp_path, model=marked.independent.read_bytes()), device="cpu")
    if found.measurement is None:
        assert (found.outcome, found.reason) == (Outcome.UNVERIFIABLE, "malformed")
    else:
        assert abs(value) < 1
        assert found.measurement.matched < 360


async def ask_the_real_process(job: Job, *, readable: Path) -> Answer:
    settings = VerifierSettings(device="cpu", threads=1, timeout_s=120, memory_bytes_max=2**31, controls_directory="")
    verifier = Verifier(settings, readable=(readable,))
    try:
        return await verifier.verify(job)
    finally:
        await verifier.stop()


async def test_the_real_process_starts_says_what_confines_it_and_answers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    answered = await ask_the_real_process(job(tmp_path, head_commitment=b"x" * 32), readable=tmp_path)
    assert (answered.outcome, answered.reason) == (Outcome.REFUTED, "head_mismatch")
    lines = [str(getattr(record, "fields", {}).get("line", "")) for record in caplog.records]
    assert [line.partition(":")[0] for line in lines if line] == ["sandbox"], lines


@needs_landlock
async def test_the_real_process_cannot_open_a_file_outside_the_cache(tmp_path: Path):
    (tmp_path / "cache").mkdir()
    with pytest.raises(VerifierTroubleError):
        await ask_the_real_process(job(tmp_path), readable=tmp_path / "cache")


@pytest.mark.slow
async def test_the_sandbox_changes_no_number(marked: MarkedFiles, tmp_path: Path):
    same = on_files(marked, tmp_path)
    inside = await ask_the_real_process(same, readable=tmp_path)
    assert inside == answer(same, device="cpu")
    assert inside.measurement.matched == 600


def demanding(tmp_path: Path, *, side: int) -> Job:
    """A job whose evidence asks for pictures of any size."""
    model, evidence = make_demanding(tmp_path, side=side)
    directory = tmp_path / str(side)
    directory.mkdir()
    return job(directory, model=model, evidence=evidence, permutations=0, controls=0, gamma_permille=0)


@pytest.mark.slow
async def test_a_claim_that_exhausts_the_memory_is_refused_and_the_next_one_is_verified(tmp_path: Path):
    settings = VerifierSettings(
        device="cpu", threads=1, timeout_s=120, memory_bytes_max=500_000_000, controls_directory=""
    )
    verifier = Verifier(settings, readable=(tmp_path,))
    try:
        greedy = await verifier.verify(demanding(tmp_path, side=1024))
        modest = await verifier.verify(demanding(tmp_path, side=64))
        assert verifier.ended["crashed"] == 0
    finally:
        await verifier.stop()
    assert (greedy.outcome, greedy.reason) == (Outcome.UNVERIFIABLE, "too_large")
    assert modest.measurement.total == 100


@pytest.mark.slow
async def test_a_process_that_is_killed_in_the_middle_is_replaced_and_the_claim_gets_its_numbers(
    marked: MarkedFiles, tmp_path: Path
):
    settings = VerifierSettings(device="cpu", threads=1, timeout_s=120, memory_bytes_max=2**31, controls_directory="")
    verifier = Verifier(settings, readable=(tmp_path,))
    try:
        await verifier.warm_up()
        begun, (killed,) = asyncio.Event(), verifier.process_ids
        verifying = asyncio.create_task(verifier.verify(on_files(marked, tmp_path), on_begun=begun.set))
        await begun.wait()
        async with asyncio.timeout(60):
            while verifier.state != "busy":
                await asyncio.sleep(0.01)
        os.kill(killed, signal.SIGKILL)
        answered = await verifying
        assert (verifier.ended["crashed"], verifier.ended["answered"]) == (1, 1)
    finally:
        await verifier.stop()
    assert answered.measurement.matched == 600


TAKEN_OVER = """
from node.verifier import worker

honest = worker.answer


def answer(job, **options):
    answered = honest(job, **options)
    worker._check_commitments = lambda *_: None
    worker.parse_evidence = lambda raw: (_ for _ in ()).throw(worker._Settled(worker.Outcome.REFUTED, "falsified", ""))
    return answered


worker.answer = answer
worker.main()
"""


@pytest.mark.slow
async def test_what_a_claim_changes_in_the_real_process_is_gone_for_the_next_claim(tmp_path: Path):
    settings = VerifierSettings(device="cpu", threads=1, timeout_s=120, memory_bytes_max=2**31, controls_directory="")
    real = worker_command(settings, (tmp_path,))
    command = (*real[:2], "-c", TAKEN_OVER, *real[real.index("--device") :])
    verifier = Verifier(settings, readable=(tmp_path,), command=command)
    jobs = []
    for name in ("head", "info"):
        (tmp_path / name).mkdir()
        jobs.append(job(tmp_path / name, **{f"{name}_commitment": b"x" * 32}))
    try:
        answers = [await verifier.verify(one) for one in jobs]
    finally:
        await verifier.stop()
    assert [answered.reason for answered in answers] == ["head_mismatch", "info_mismatch"]
    assert (verifier.ended["answered"], verifier.ended["crashed"]) == (2, 0)


@needs_landlock
@pytest.mark.slow
async def test_a_process_that_works_cannot_reach_the_one_that_waits(tmp_path: Path):
    settings = VerifierSettings(device="cpu", threads=1, timeout_s=120, memory_bytes_max=2**31, controls_directory="")
    waiting = await WorkerProcess.start(worker_command(settings, (tmp_path,)), threads=1)
    reaching = """
import os, sys
from node.verifier import worker

def answer(job, **options):
    other, tried = int(job.scheme), []
    for what, attempt in {
        "signal": lambda: os.kill(other, 9),
        "memory": lambda: open(f"/proc/{other}/mem", "rb"),
        "input": lambda: open(f"/proc/{other}/fd/0", "wb"),
        "output": lambda: open(f"/proc/{other}/fd/1", "wb"),
    }.items():
        try:
            attempt()
            tried.append(what)
        except OSError:
            pass
    return worker.unmeasured(worker.Outcome.REFUTED, "reached", ",".join(tried) or "nothing")

worker.answer = answer
worker.main()
"""
    real = worker_command(settings, (tmp_path,))
    verifier = Verifier(
        settings, readable=(tmp_path,), command=(*real[:2], "-c", reaching, *real[real.index("--device") :])
    )
    try:
        answered = await verifier.verify(dataclasses.replace(JOB, scheme=str(waiting.process_id)))
        assert waiting.is_running
    finally:
        await verifier.stop()
        await waiting.end()
    assert (answered.reason, answered.detail) == ("reached", "nothing")


def test_the_process_ends_with_its_input():
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "node.verifier.worker"),
            *("--device", "cpu", "--threads", "1", "--memory-bytes-max", str(2**31)),
            *("--parent", str(os.getpid())),
        ],
        input=b"",
        env={"PYTHONPATH": str(root), "PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        cwd="/",
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, frame(READY)), done.stderr
