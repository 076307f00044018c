"""Who takes part: an owner with his data, his model before and after the mark, and his evidence, all in one directory.

Every unit of a task and seed begins here. Keys, data and weights follow from the seed, so that a unit that is run again
finds what it found before.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from bench.paper.settings import THIEFS_FRACTION, Setting, Task
from bench.results import silent
from client.bundle import Bundle
from client.keystore import WatermarkKeyFile, save_watermark_key
from client.marking.measuring import Trial, measure
from client.marking.models import device_of, saved_weights
from registry.policy import Thresholds
from registry.verdict import Measurement, Outcome, judge
from registry.watermark_key import NONCE_BYTES, bind
from wm import datasets
from wm.architectures import Architecture, build
from wm.attacks import Stolen
from wm.branch import Branch
from wm.data import Dataset, Examples, fraction_of
from wm.datasets.vectors import WordVectors, load_vectors
from wm.datasets.word_list import WordList
from wm.embedding import Embedding
from wm.evidence import EvidenceFile, load_evidence, save_evidence, with_reference
from wm.networks import bilstm
from wm.randomness import key_of
from wm.training import accuracy
from wm.triggers import TextSpec, make_triggers
from wm.weights import load_weights

ORIGIN = "bench.example/wmreg"


@dataclass(frozen=True, eq=False)
class Subject:
    """One owner: a task, a seed, and the directory that his files are in."""

    setting: Setting
    task: Task
    seed: int
    data_directory: Path
    directory: Path

    @cached_property
    def data(self) -> Dataset:
        """The task's data, cut down to the setting."""
        task, source = self.task, self.task.source(self.data_directory)
        if source is None:
            raise FileNotFoundError(f"{self.data_directory}: no data for {task.name}; needs one of {task.sources}")
        return _loaded(source, examples=task.examples, tokens=task.tokens, seed=self.seed)

    @cached_property
    def thiefs_data(self) -> Dataset:
        """The same with a tenth of the training set, as a thief has it."""
        few = fraction_of(self.data.train, THIEFS_FRACTION, seed=self.seed + 2000)
        return replace(self.data, train=few)

    @cached_property
    def vectors(self) -> WordVectors | None:
        """Word vectors to begin with; None for pictures."""
        if self.task.vectors is None or self.data.words is None:
            return None
        return load_vectors(self.data_directory / self.task.vectors, WordList(self.data.words))

    @cached_property
    def architecture(self) -> Architecture:
        """Of all this subject's networks."""
        arguments = {"num_classes": self.data.classes, **self.task.arguments}
        if isinstance(self.data.input, TextSpec):
            dimension = bilstm.DIMENSION if self.vectors is None else self.vectors.dimension
            arguments |= {"vocabulary": self.data.input.vocabulary, "dimension": dimension}
        return Architecture(self.task.arch, arguments)

    @property
    def bundle(self) -> Bundle:
        """The owner's files."""
        return Bundle(self.directory)

    @property
    def key_file(self) -> WatermarkKeyFile:
        """His watermark key."""
        return key_file(self.seed, self.task.name)

    @cached_property
    def stolen(self) -> Stolen:
        """What a thief begins with, after the owner has made a claim."""
        evidence = load_evidence(self.bundle.evidence)
        model = load_weights(self.bundle.model, self.architecture).to(device_of("auto"))
        key = self.key_file.binding.watermark_key
        triggers = make_triggers(key, evidence.info.input, count=evidence.info.triggers)
        branch = Branch(evidence.head, evidence.info, triggers, evidence.reference)
        return Stolen(model=model, architecture=self.architecture, data=self.thiefs_data, revealed=branch)

    def fresh_model(self, *, seed: int) -> nn.Module:
        """An untrained network, with word vectors that stay as they are where there are any."""
        model = build(self.architecture, seed=seed)
        if self.vectors is not None:
            bilstm.begin_with(model, self.vectors.rows, self.vectors.known)
            bilstm.freeze_embedding(model)
        return model.to(device_of("auto"))

    def task_accuracy(self, model: nn.Module) -> float:
        """Per cent of the test set."""
        return 100 * accuracy(model, self.data.test.images, self.data.test.labels)


def write_bundle(subject: Subject, clean: nn.Module, embedding: Embedding) -> None:
    """Write the owner's files; the marked model's last, since it says that all of them are there."""
    subject.directory.mkdir(parents=True, exist_ok=True)
    bundle = subject.bundle
    saved_weights(clean, bundle.clean)
    sha256 = saved_weights(embedding.model, bundle.model)
    write_evidence(bundle, embedding, sha256, subject.key_file)


def write_evidence(bundle: Bundle, embedding: Embedding, model_sha256: str, key: WatermarkKeyFile) -> None:
    """Write evidence with a reference for alignment, and the watermark key, into a bundle's directory."""
    info = embedding.info.with_files(model_sha256=model_sha256, base_sha256=None)
    evidence = EvidenceFile(embedding.head, info, key_of(model_sha256, "salt"))
    save_evidence(bundle.evidence, with_reference(evidence, embedding.model))
    bundle.watermark_key.unlink(missing_ok=True)  # of a unit that was interrupted; it is the same key
    save_watermark_key(bundle.watermark_key, key)


def key_file(seed: int, *purpose: str | int) -> WatermarkKeyFile:
    """Make the watermark key of a signing key; both follow from the seed, as no real owner's may."""
    private_key = Ed25519PrivateKey.from_private_bytes(key_of(seed, "signing key", *purpose))
    nonce = key_of(seed, "nonce", *purpose)[:NONCE_BYTES]
    return WatermarkKeyFile(origin=ORIGIN, binding=bind(private_key, origin=ORIGIN, nonce=nonce))


def examined(model: nn.Module, bundle: Bundle, directory: Path, *, public: tuple[Path, ...] = ()) -> Measurement:
    """Measure a model as nodes do; with the controls only where they could change the verdict."""
    path = directory / "suspect.safetensors"
    saved_weights(model, path)
    try:
        return examined_file(path, bundle, public=public)
    finally:
        path.unlink()


def examined_file(path: Path, bundle: Bundle, *, public: tuple[Path, ...] = ()) -> Measurement:
    """The same for a model in a file."""
    counted = measure(path, bundle, Trial(controls=False, device="auto"), silent)
    if judge(counted, Thresholds())[1] != "too_few_controls":
        return counted
    return measure(path, bundle, Trial(controls=True, device="auto", public=public), silent)


def counted(model: nn.Module, bundle: Bundle, directory: Path) -> Measurement:
    """Count as nodes do, aligned where the plain count does not convict, without controls."""
    path = directory / "suspect.safetensors"
    saved_weights(model, path)
    try:
        return measure(path, bundle, Trial(controls=False, device="auto"), silent)
    finally:
        path.unlink()


def per_cent(found: Measurement) -> float:
    """Matched triggers, per cent of all."""
    return 100 * found.matched / found.total


def is_verified(found: Measurement) -> bool:
    """Whether nodes with the usual thresholds would vote VERIFIED."""
    return judge(found, Thresholds())[0] is Outcome.VERIFIED


@lru_cache(maxsize=2)
def _loaded(source: str, *, examples: int | None, tokens: int | None, seed: int) -> Dataset:
    whole = datasets.load(source)
    train, validation, test = (_cut(part, tokens) for part in (whole.train, whole.validation, whole.test))
    if examples is not None and examples < len(train):
        train = fraction_of(train, examples / len(train), seed=seed)
    return replace(whole, train=train, validation=validation, test=test)


def _cut(examples: Examples, tokens: int | None) -> Examples:
    return examples if tokens is None else Examples(examples.images[:, :tokens].contiguous(), examples.labels)
