"""A GPU finds what a CPU finds, in exact fp32, and says of its own accord when it cannot (`make gpu`).

The GPU must be idle otherwise: what other programs hold of its memory is what some of these tests are about.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jobs import on_files
from marked import ARCHITECTURE, INPUT, MarkedFiles, make_marked
from nodeset import JOB
from precision import tf32

from node.config import VerifierSettings
from node.verifier.protocol import EXIT_TROUBLE, Answer, Job
from node.verifier.supervisor import Verifier
from node.verifier.worker import NEAR, OTHERS_BYTES_MAX, answer
from registry.policy import Thresholds
from registry.verdict import Outcome, judge
from wm.architectures import build, default_taps
from wm.backbone import features_in_evaluation
from wm.computing import reproducible
from wm.triggers import make_triggers

pytestmark = pytest.mark.gpu
FP32_ERROR_MAX = 1e-4  # relative; TF32 keeps ten bits of the mantissa, which is 1e-3
FORWARD_MAX_S = 0.05


@pytest.fixture(scope="session")
def marked(tmp_path_factory: pytest.TempPathFactory) -> MarkedFiles:
    return make_marked(tmp_path_factory.mktemp("marked"), JOB.watermark_key)


async def ask_the_real_process(job: Job, *, readable: Path, device: str = "auto") -> Answer:
    settings = VerifierSettings(device=device, threads=1, timeout_s=120, memory_bytes_max=2**31, controls_directory="")
    verifier = Verifier(settings, readable=(readable,))
    try:
        return await verifier.verify(job)
    finally:
        await verifier.stop()


def test_a_gpu_counts_what_the_cpu_counts(marked: MarkedFiles, tmp_path: Path):
    same = on_files(marked, tmp_path, controls=2)
    on_cpu, on_gpu = answer(same, device="cpu"), answer(same, device="cuda")
    assert abs(on_gpu.measurement.matched - on_cpu.measurement.matched) <= NEAR
    for here, there in zip(on_gpu.measurement.controls, on_cpu.measurement.controls, strict=True):
        assert abs(here.matched - there.matched) <= NEAR
    assert on_gpu.device == torch.cuda.get_device_name()


@pytest.mark.parametrize("is_marked", [True, False])
def test_a_gpu_comes_to_the_verdict_of_the_cpu(marked: MarkedFiles, tmp_path: Path, is_marked: bool):
    thresholds = Thresholds(controls_min=1)
    model = (marked.model if is_marked else marked.independent).read_bytes()
    same = on_files(marked, tmp_path, model=model, permutations=thresholds.permutations_min)
    verdicts = [judge(answer(same, device=device).measurement, thresholds) for device in ("cpu", "cuda")]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0][0] is (Outcome.VERIFIED if is_marked else Outcome.REFUTED)


async def test_every_process_on_the_gpu_comes_to_the_same_numbers(marked: MarkedFiles, tmp_path: Path):
    same = on_files(marked, tmp_path)
    first = answer(same, device="cuda")
    assert answer(same, device="cuda") == first
    assert await ask_the_real_process(same, readable=tmp_path) == first


async def test_auto_is_the_gpu_from_inside_the_sandbox_and_cpu_is_not(marked: MarkedFiles, tmp_path: Path):
    same = on_files(marked, tmp_path)
    by_itself = await ask_the_real_process(same, readable=tmp_path)
    as_told = await ask_the_real_process(same, readable=tmp_path, device="cpu")
    assert (by_itself.device, as_told.device) == (torch.cuda.get_device_name(), "cpu")
    assert by_itself.measurement.matched >= 600 - NEAR


def test_a_count_near_a_threshold_is_the_cpus(marked: MarkedFiles, tmp_path: Path):
    far = answer(on_files(marked, tmp_path, refute_permille=500), device="cuda")
    near = answer(on_files(marked, tmp_path, refute_permille=1000), device="cuda")
    assert (far.device, near.device) == (torch.cuda.get_device_name(), "cpu")


def fp32_error() -> float:
    """Largest difference of the features on the GPU from those on the CPU, relative to the largest feature."""
    images, modules = make_triggers(JOB.watermark_key, INPUT, count=64).images, default_taps(ARCHITECTURE)
    read = [
        features_in_evaluation(build(ARCHITECTURE, seed=1).to(device), modules, images, pooling=2).cpu()
        for device in ("cpu", "cuda")
    ]
    return float((read[0] - read[1]).abs().max() / read[0].abs().max())


def test_a_verification_is_in_fp32_whatever_the_process_is_set_to():
    with tf32(is_allowed=True), torch.no_grad():
        with reproducible():
            assert fp32_error() < FP32_ERROR_MAX
        if torch.cuda.get_device_capability() >= (8, 0):  # older ones have no TF32
            assert fp32_error() > FP32_ERROR_MAX


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Let this process take hardly any of the GPU's memory."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("little_memory")
def test_a_claim_that_does_not_fit_into_the_gpu_is_too_large(marked: MarkedFiles, tmp_path: Path):
    settled = answer(on_files(marked, tmp_path), device="cuda")
    assert (settled.outcome, settled.reason) == (Outcome.UNVERIFIABLE, "too_large")


HOLDER = """
import sys, torch
held = torch.zeros(int(sys.argv[1]), dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.usefixtures("little_memory")
def test_a_gpu_that_another_program_fills_is_no_claims_fault(marked: MarkedFiles, tmp_path: Path):
    held_bytes = OTHERS_BYTES_MAX + 2**30
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(held_bytes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(SystemExit) as ended:
            answer(on_files(marked, tmp_path), device="cuda")
        holder.stdin.close()
    assert ended.value.code == EXIT_TROUBLE


def test_600_triggers_of_a_resnet18_take_less_than_50_ms():
    images, modules = make_triggers(JOB.watermark_key, INPUT, count=600).images, default_taps(ARCHITECTURE)
    model, taken_s = build(ARCHITECTURE, seed=1).to("cuda"), []
    with reproducible(), torch.no_grad():
        for _ in range(8):
            begun_s = time.perf_counter()
            features_in_evaluation(model, modules, images, pooling=2).cpu()
            taken_s.append(time.perf_counter() - begun_s)
    assert statistics.median(taken_s[1:]) < FORWARD_MAX_S, taken_s
