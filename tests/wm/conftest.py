"""One small embedding for the whole directory: 100 triggers, a handful of steps."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import wm
from wm import data
from wm.architectures import Architecture, build
from wm.weights import save_weights

KEY = bytes(range(32))
OTHER_KEY = bytes(reversed(range(32)))
ARCHITECTURE = Architecture("resnet18", {"num_classes": 10})
SETTINGS = wm.EmbedSettings(
    triggers=100,
    hidden=32,
    pooling=2,
    steps=2,
    trigger_batch=50,
    primary_batch=4,
    shadows=2,
    shadow_steps=1,
    head_steps=80,
)


@dataclass(frozen=True)
class Owner:
    """What an owner has after embedding, and another key."""

    key: bytes
    other_key: bytes
    architecture: Architecture
    settings: wm.EmbedSettings
    embedding: wm.Embedding
    model_path: Path
    evidence_path: Path
    clean: torch.nn.Module


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads that share two cores with other processes wait for each other
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def few_digits() -> data.Dataset:
    digits = data.digits()
    return replace(
        digits, train=data.fraction_of(digits.train, 0.05, seed=1), validation=digits.validation.take(torch.arange(8))
    )


@pytest.fixture(scope="session")
def owner(few_digits: data.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Owner:
    directory = tmp_path_factory.mktemp("owner")
    clean = build(ARCHITECTURE, seed=1).eval()
    embedding = wm.embed(clean, few_digits, KEY, architecture=ARCHITECTURE, settings=SETTINGS, seed=1)
    model_path, evidence_path = directory / "model.safetensors", directory / "evidence.safetensors"
    info = embedding.info.with_files(model_sha256=save_weights(embedding.model, model_path), base_sha256=None)
    evidence = wm.with_reference(wm.EvidenceFile(embedding.head, info, bytes(32)), embedding.model)
    wm.save_evidence(evidence_path, evidence)
    return Owner(KEY, OTHER_KEY, ARCHITECTURE, SETTINGS, embedding, model_path, evidence_path, clean)
