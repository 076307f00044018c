"""A small model with real evidence, made in seconds: for tests of what happens around a verification.

A head is fitted to the triggers of a fresh, frozen ResNet-18. That passes the statistic and its controls, which is the
very weakness that makes a publication before the release necessary (SCHEMES 0); for a test it serves like an embedding.
"""

import hashlib
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn import functional

from wm.alignment import make_reference, probing_for
from wm.architectures import Architecture, build, default_taps, skeleton
from wm.backbone import feature_count, features_in_evaluation
from wm.evidence import EvidenceFile, load_evidence, save_evidence
from wm.head import Head, initial_head
from wm.info import Info
from wm.tap_shapes import describe_taps
from wm.triggers import InputSpec, Normalisation, make_triggers
from wm.weights import load_backbone, save_weights

ARCHITECTURE = Architecture("resnet18", {"num_classes": 10})
INPUT = InputSpec(channels=3, height=32, width=32, normalisation=Normalisation(mean=("0.5",) * 3, std=("0.5",) * 3))
STEPS = 300


@dataclass(frozen=True)
class MarkedFiles:
    """Weights and evidence of one owner, and the weights of a model that is not his."""

    model: Path
    evidence: Path
    independent: Path


def make_marked(directory: Path, watermark_key: bytes, *, seed: int = 1) -> MarkedFiles:
    """Write a marked model, its evidence, and an independent model; of another seed, other ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads that share two cores with other processes wait for each other
    try:
        return _make(directory, watermark_key, seed)
    finally:
        torch.set_num_threads(threads)


def declaring(marked: MarkedFiles, base: Path, path: Path) -> Path:
    """Write the same evidence, but that it declares a base."""
    evidence = load_evidence(marked.evidence)
    digest = hashlib.sha256(base.read_bytes()).hexdigest()
    info = evidence.info.with_files(model_sha256=evidence.info.model_sha256, base_sha256=digest)
    save_evidence(path, EvidenceFile(evidence.head, info, evidence.salt))
    return path


def centred_at(value: float, marked: MarkedFiles, path: Path) -> Path:
    """Write the same evidence, but that every suspect's mean answers are moved to this value."""
    evidence = load_evidence(marked.evidence)
    info = replace(
        evidence.info, reference=probing_for(evidence.info.taps, pooling=evidence.info.pooling, centred=True)
    )
    reference = make_reference(load_backbone(marked.model, info), info)
    moved = replace(reference, centre=torch.full_like(reference.centre, value))
    save_evidence(path, replace(evidence, info=info, reference=moved))
    return path


def make_demanding(directory: Path, *, side: int) -> tuple[bytes, bytes]:
    """Weights, and evidence that asks for pictures of any size: with a large one, for any amount of memory."""
    architecture = Architecture("squeezenet1_1", {"num_classes": 2})
    (tap,) = describe_taps(skeleton(architecture), ["features.0"], channels=3, height=side, width=side)
    info = Info(
        scheme="mtlsign",
        architecture=architecture,
        taps=(tap,),
        pooling=2,
        hidden=8,
        triggers=100,
        gamma="0.7",
        input=InputSpec(3, side, side, Normalisation(("0.5",) * 3, ("0.5",) * 3)),
    ).with_files(model_sha256="0" * 64, base_sha256=None)
    save_weights(build(architecture, seed=1), directory / "m")
    head = Head(inputs=feature_count([tap], pooling=2), hidden=8)
    save_evidence(directory / "e", EvidenceFile(head, info, bytes(32)))
    return (directory / "m").read_bytes(), (directory / "e").read_bytes()


def _make(directory: Path, watermark_key: bytes, seed: int) -> MarkedFiles:
    files = MarkedFiles(*(directory / f"{name}.safetensors" for name in ("model", "evidence", "independent")))
    model = build(ARCHITECTURE, seed=seed)
    info = _info().with_files(model_sha256=save_weights(model, files.model), base_sha256=None)
    triggers = make_triggers(watermark_key, INPUT, count=info.triggers)
    features = features_in_evaluation(model, info.modules, triggers.images, pooling=info.pooling)
    head = initial_head(features, info.taps, pooling=info.pooling, hidden=info.hidden, seed=seed)
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        functional.cross_entropy(head(features), triggers.labels.long()).backward()
        optimizer.step()
    save_evidence(files.evidence, EvidenceFile(head.eval(), info, secrets.token_bytes(32)))
    save_weights(build(ARCHITECTURE, seed=seed + 1), files.independent)
    return files


def _info() -> Info:
    modules = default_taps(ARCHITECTURE)
    taps = describe_taps(skeleton(ARCHITECTURE), modules, channels=3, height=32, width=32)
    return Info(
        scheme="mtlsign",
        architecture=ARCHITECTURE,
        taps=tuple(taps),
        pooling=2,
        hidden=64,
        triggers=600,
        gamma="0.7",
        input=INPUT,
    )
