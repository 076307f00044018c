"""What does one node's verification cost? `make bench NAME=verification`, ResNet-18 on pictures of 32 x 32, one thread.

The reference is what no verification can do without: the bare forward passes of the 600 triggers through the tapped
stages, one for the suspect and one for each control model. The real verifier process, in its sandbox, answers the
jobs; each repeat measures the reference before and after it, since a machine is faster at one time than at another.
Where there is a GPU, the triggers' forward pass and a verification without controls are measured on it as well.
"""

import asyncio
import hashlib
import os
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional

from bench.results import Row, write
from node.config import VerifierSettings
from node.verifier.protocol import Answer, Job
from node.verifier.supervisor import Verifier
from node.verifier.worker import answer
from registry.evidence import parse_evidence
from registry.policy import Thresholds
from wm.architectures import Architecture, build, default_taps, skeleton
from wm.backbone import features_in_evaluation
from wm.computing import reproducible
from wm.evidence import EvidenceFile, save_evidence
from wm.head import initial_head
from wm.info import Info
from wm.schemes.mtlsign import EmbedSettings
from wm.tap_shapes import describe_taps
from wm.triggers import InputSpec, Normalisation, make_triggers
from wm.weights import save_weights

REPEATS = 7
HASHED_BYTES = 2**30
RATIO_MAX, HASHING_LEAST_GB_S, GPU_MAX_MS = 1.5, 1.0, 50
ARCHITECTURE = Architecture("resnet18", {"num_classes": 10})
INPUT = InputSpec(channels=3, height=32, width=32, normalisation=Normalisation(mean=("0.5",) * 3, std=("0.5",) * 3))
THRESHOLDS = Thresholds()
KEY = bytes(range(32))
STEPS = 300


def main() -> None:
    """Measure and write bench/results/verification.json."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        rows = asyncio.run(_measure(Path(directory)))
    write("verification", rows)


async def _measure(directory: Path) -> list[Row]:
    job, images = _make_claim(directory), make_triggers(KEY, INPUT, count=600).images
    settings = VerifierSettings(device="cpu", threads=1, timeout_s=600, memory_bytes_max=2**33, controls_directory="")
    verifier = Verifier(settings, readable=(directory,))
    try:
        await verifier.warm_up()
        idle_bytes = _resident_bytes(verifier)
        await _answered(verifier, job)  # the first one also fills the caches of the system
        verified, bare = [], []
        for _ in range(REPEATS):
            await verifier.warm_up()  # as when a claim comes to a node that has nothing to do
            before = _forward_seconds(images)
            begun = time.perf_counter()
            await _answered(verifier, job)
            verified.append(time.perf_counter() - begun)
            bare.append(statistics.mean((before, _forward_seconds(images))))
    finally:
        await verifier.stop()
    peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of one process, the largest
    models = 1 + THRESHOLDS.controls_min
    ratios = [one / (models * other) for one, other in zip(verified, bare, strict=True)]
    against = f"bare forward passes of 600 triggers through the tapped stages of {models} models"
    return [
        _row("one verification with all controls", verified, "s"),
        _row("bare forward pass of 600 triggers", bare, "s"),
        _row(
            "verification against the bare forward passes", ratios, "", goal=f"≤ {RATIO_MAX}",
            met=statistics.median(ratios) <= RATIO_MAX, against=against,
        ),
        _hashing_row(directory),
        Row(metric="verifier process, idle", value=round(idle_bytes / 2**20), unit="MiB"),
        Row(metric="verifier process, at most", value=round(peak_bytes / 2**20), unit="MiB"),
        *(_gpu_rows(job, images) if torch.cuda.is_available() else []),
    ]  # fmt: skip


async def _answered(verifier: Verifier, job: Job) -> Answer:
    answer = await verifier.verify(job)
    if answer.measurement is None or len(answer.measurement.controls) != THRESHOLDS.controls_min:
        raise RuntimeError(f"not the verification that was to be measured: {answer}")
    return answer


def _forward_seconds(images: torch.Tensor) -> float:
    model, modules = build(ARCHITECTURE, seed=1), default_taps(ARCHITECTURE)
    begun = time.perf_counter()
    features_in_evaluation(model, modules, images, pooling=EmbedSettings().pooling)
    return time.perf_counter() - begun


def _gpu_rows(job: Job, images: torch.Tensor) -> list[Row]:
    """What the GPU takes for the forward pass alone, and for a claim; the first pass of this process is not counted."""
    model, modules = build(ARCHITECTURE, seed=1).to("cuda"), default_taps(ARCHITECTURE)
    forward, whole = [], []
    for _ in range(1 + REPEATS):
        with reproducible(), torch.no_grad():
            begun = time.perf_counter()
            features_in_evaluation(model, modules, images, pooling=EmbedSettings().pooling).cpu()
            forward.append(1000 * (time.perf_counter() - begun))
        begun = time.perf_counter()
        answer(replace(job, permutations=0, controls=0), device="cuda")
        whole.append(1000 * (time.perf_counter() - begun))
    name = torch.cuda.get_device_name()
    met = statistics.median(forward[1:]) <= GPU_MAX_MS
    return [
        _row(f"600 triggers on {name}, without controls", forward[1:], "ms", goal=f"≤ {GPU_MAX_MS} ms", met=met),
        _row(f"one verification on {name}, without controls, files read", whole[1:], "ms"),
    ]


def _hashing_row(directory: Path) -> Row:
    """Hash a large file as the verifier process does."""
    path, rates = directory / "large", []
    with path.open("wb") as file:
        block = os.urandom(2**20)
        for _ in range(HASHED_BYTES // len(block)):
            file.write(block)
    for _ in range(3):
        begun = time.perf_counter()
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
        rates.append(HASHED_BYTES / 1e9 / (time.perf_counter() - begun))
    goal, met = f"≥ {HASHING_LEAST_GB_S:g} GB/s", statistics.median(rates) >= HASHING_LEAST_GB_S
    return _row("hashing a file of 1 GiB", rates, "GB/s", goal=goal, met=met)


def _make_claim(directory: Path) -> Job:
    """A marked model with the embedding's default head, fitted to a frozen network: what it answers costs the same."""
    settings, modules = EmbedSettings(), default_taps(ARCHITECTURE)
    model = build(ARCHITECTURE, seed=1)
    taps = tuple(describe_taps(skeleton(ARCHITECTURE), modules, channels=3, height=32, width=32))
    triggers = make_triggers(KEY, INPUT, count=settings.triggers)
    read = features_in_evaluation(model, modules, triggers.images, pooling=settings.pooling)
    head = initial_head(read, taps, pooling=settings.pooling, hidden=settings.hidden, seed=1)
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        functional.cross_entropy(head(read), triggers.labels.long()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    info = Info(
        scheme="mtlsign", architecture=ARCHITECTURE, taps=taps, pooling=settings.pooling, hidden=settings.hidden,
        triggers=settings.triggers, gamma=settings.gamma, input=INPUT,
    ).with_files(model_sha256=save_weights(model, directory / "model"), base_sha256=None)  # fmt: skip
    save_evidence(directory / "evidence", EvidenceFile(head.eval(), info, bytes(32)))
    evidence = (directory / "evidence").read_bytes()
    parsed = parse_evidence(evidence)
    return Job(
        model_path=str(directory / "model"),
        model_sha256=hashlib.sha256((directory / "model").read_bytes()).digest(),
        model_bytes_max=2**30,
        evidence_path=str(directory / "evidence"),
        evidence_sha256=hashlib.sha256(evidence).digest(),
        evidence_bytes_max=2**30,
        base_path="",
        null_paths=(),
        scheme=info.scheme,
        head_commitment=parsed.head_commitment,
        info_commitment=parsed.info_commitment,
        watermark_key=KEY,
        control_seed=bytes(32),
        permutations=THRESHOLDS.permutations_min,
        controls=THRESHOLDS.controls_min,
        gamma_permille=THRESHOLDS.gamma_permille,
        refute_permille=THRESHOLDS.refute_permille,
        control_permille=THRESHOLDS.control_permille,
    )


def _resident_bytes(verifier: Verifier) -> int:
    """Resident memory of the process that waits (proc(5))."""
    (process,) = verifier.process_ids
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def _row(
    metric: str, values: list[float], unit: str, *, goal: str | None = None, met: bool | None = None,
    against: str | None = None,
) -> Row:  # fmt: skip
    return Row(
        metric=metric, value=round(statistics.median(values), 3), unit=unit,
        spread=(round(min(values), 3), round(max(values), 3)), goal=goal, met=met, against=against,
    )  # fmt: skip


if __name__ == "__main__":
    main()
