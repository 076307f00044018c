"""A small task of texts with a small marked Bi-LSTM, made in seconds: for tests of what happens around them.

A text's label is the commoner of two kinds of words in it, so there is something to learn.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

import wm
from wm.architectures import Architecture, build
from wm.data import Dataset, Examples
from wm.datasets.word_list import WordList
from wm.training import fit
from wm.triggers import TextSpec
from wm.weights import save_weights

WORDS = WordList(tuple(f"{kind}{number}" for number in range(100) for kind in ("good", "bad")))
ARCHITECTURE = Architecture("bilstm", {"num_classes": 2, "vocabulary": WORDS.vocabulary, "dimension": 16, "hidden": 16})
SPEC = TextSpec(32, WORDS.vocabulary, WORDS.sha256)
SETTINGS = wm.EmbedSettings(
    triggers=100,
    hidden=32,
    steps=6,
    trigger_batch=50,
    primary_batch=16,
    shadows=2,
    shadow_steps=2,
    head_steps=150,
    feature_noise=0.3,
)


@dataclass(frozen=True)
class TextOwner:
    """What an owner has after embedding, and the model before it."""

    key: bytes
    data: Dataset
    clean: torch.nn.Module
    embedding: wm.Embedding
    model_path: Path
    evidence_path: Path


def sentiments(*, train: int = 512) -> Dataset:
    """Texts of 3 to 24 words, labelled by which kind is commoner."""
    source = torch.Generator().manual_seed(1)

    def examples(count: int) -> Examples:
        texts, labels = torch.zeros(count, 24, dtype=torch.int64), torch.arange(count) % 2
        for row, label in enumerate(labels.tolist()):
            length = int(torch.randint(3, 25, (), generator=source))
            is_own = torch.rand(length, generator=source) < 0.8
            kinds = torch.where(is_own, 1 - label, label)  # a good word has an even id, and good is label 1
            texts[row, :length] = 2 + 2 * torch.randint(100, (length,), generator=source) + kinds
        return Examples(texts, labels)

    return Dataset("sentiments", 2, SPEC, examples(train), examples(32), examples(200), words=WORDS.words)


def make_text_owner(directory: Path, key: bytes, settings: wm.EmbedSettings = SETTINGS) -> TextOwner:
    """Train and mark a model, and write its files."""
    data, clean = sentiments(), build(ARCHITECTURE, seed=1)
    fit(clean, data, epochs=4, lr=1e-2, seed=1)
    embedding = wm.embed(clean, data, key, architecture=ARCHITECTURE, settings=settings, seed=1)
    model_path, evidence_path = directory / "model.safetensors", directory / "evidence.safetensors"
    info = embedding.info.with_files(model_sha256=save_weights(embedding.model, model_path), base_sha256=None)
    evidence = wm.with_reference(wm.EvidenceFile(embedding.head, info, bytes(32)), embedding.model)
    wm.save_evidence(evidence_path, evidence)
    return TextOwner(key, data, clean, embedding, model_path, evidence_path)
