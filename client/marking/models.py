"""Data sets, networks and trainings as the command line names them; the bridge to `wm`.

Importing this module imports torch, so verbs do it when they run. Errors of `wm` become the client's here.
"""

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import wm
from client.errors import InputError, InvalidError
from client.marking.task import Task
from wm import datasets, tensorfile
from wm.architectures import Architecture, build, classifiers, instance_segmenters, skeleton, text_classifiers
from wm.backbone import classes_of
from wm.data import Dataset, fraction_of
from wm.datasets.vectors import WordVectors, load_vectors
from wm.datasets.word_list import WordList, load_word_list
from wm.info import TAPS_MAX
from wm.info_fields import check_pictures
from wm.networks import bilstm, mask_rcnn
from wm.progress import Progress, ProgressCallback
from wm.scenes import Scenes
from wm.tap_shapes import possible_taps, taps_of
from wm.taps import taps_for
from wm.training import fit, measure_of, score
from wm.triggers import InputSpec, Spec, TextSpec
from wm.weights import MODEL_BYTES_MAX, load_transferred, load_weights, save_weights

_EXAMPLES = {
    "pictures": "resnet18, resnet50, resnext50_32x4d or wide_resnet50_2",
    "texts": "bilstm",
    "pictures with masks": "maskrcnn_resnet18_fpn, maskrcnn_resnet50_fpn or cascade_maskrcnn_resnet50_fpn",
}
Show = Callable[[str, int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A plain training: passes over the data, 0 for none, and Adam's first learning rate."""

    epochs: int
    lr: float


FROM_SCRATCH = Schedule(epochs=6, lr=1e-3)
MASKS_FROM_SCRATCH = Schedule(epochs=40, lr=2e-3)
FINE_TUNING = Schedule(epochs=10, lr=1e-4)  # ten times gentler: a trained model keeps its accuracy


@contextmanager
def watermark_errors(path: Path | None = None) -> Iterator[None]:
    """Turn what `wm` objects to into the client's error, with the file's path in front; a full device as well."""
    where = f"{path}: " if path is not None else ""
    try:
        yield
    except wm.WatermarkError as error:
        raise InvalidError(f"{where}{error}", code=error.code) from error
    except (torch.OutOfMemoryError, MemoryError) as error:
        message = f"{where}not enough memory on this device for it; take another --device, or less data"
        raise InputError(message, code="out_of_memory") from error


def schedule_of(task: Task, data: Dataset) -> Schedule:
    """The plain training that comes first."""
    if _begins_trained(task):
        usual = FINE_TUNING
    else:
        usual = MASKS_FROM_SCRATCH if isinstance(data.train, Scenes) else FROM_SCRATCH
    epochs, lr = task.epochs, task.lr
    return Schedule(epochs=usual.epochs if epochs is None else epochs, lr=usual.lr if lr is None else lr)


def _begins_trained(task: Task) -> bool:
    return task.weights is not None or task.base is not None


def load_data(task: Task) -> Dataset:
    """Load the data set, its training set cut down to the task's fraction.

    Raises:
        InputError: there is no such data set, or it is of another kind than options that are given.
        InvalidError: its files are not what they should be, naming the first.
        OSError: a file cannot be read.
    """
    words = None
    if task.words is not None:
        with watermark_errors(task.words):
            words = load_word_list(task.words)
    if not datasets.is_known(task.data):
        raise InputError(f"--data {task.data}: {datasets.HINT}")
    if task.image_size is not None and not datasets.has_masks(task.data):
        raise InputError(f"--image-size: only for pictures with masks, and --data {task.data} is something else")
    with watermark_errors(Path(task.data)):
        whole = datasets.load(task.data, words=words, side=task.image_size)
        if isinstance(whole.input, InputSpec):
            check_pictures(whole.input)
    _check_options_of_texts(task, whole)
    return replace(whole, train=fraction_of(whole.train, task.fraction, seed=task.seed))


def _check_options_of_texts(task: Task, data: Dataset) -> None:
    given = {"--words": task.words, "--vectors": task.vectors, "--freeze-embedding": task.freeze_embedding}
    if data.words is None and any(given.values()):
        named = next(name for name, value in given.items() if value)
        raise InputError(f"{named}: only for texts, and --data {task.data} is {_kind(data)}")
    if task.freeze_embedding and task.vectors is None and task.weights is None:
        raise InputError("--freeze-embedding: random word vectors would stay random; give --vectors or --weights")
    if task.vectors is not None and task.weights is not None:
        raise InputError("--vectors: not with --weights, which have word vectors already")


def architecture_of(task: Task, data: Dataset) -> Architecture:
    """The catalogue's entry for this task.

    Raises:
        InputError: the catalogue has no such name, or none for such data.
        InvalidError: the data set has too few or too many classes; the file of word vectors is none.
    """
    known = {
        "pictures": classifiers(),
        "texts": text_classifiers(),
        "pictures with masks": instance_segmenters(),
    }
    kind = _kind(data)
    wanted = known.pop(kind)
    if any(task.arch in names for names in known.values()):
        raise InputError(f"--arch {task.arch}: --data {task.data} is {kind}, take one such as {_EXAMPLES[kind]}")
    if task.arch not in wanted:
        raise InputError(f"--arch {task.arch}: no such network of the catalogue; {_near(task.arch, wanted, kind)}")
    arguments = {"num_classes": data.classes}
    if isinstance(data.input, TextSpec):
        arguments |= {"vocabulary": data.input.vocabulary, "dimension": _dimension(task, data)}
    if isinstance(data.train, Scenes):
        arguments |= mask_rcnn.arguments_for(task.arch, data.train.images.shape[-1])
    with watermark_errors():
        return Architecture(task.arch, arguments)


def _dimension(task: Task, data: Dataset) -> int:
    """How many numbers a word's vector has: as many as those to begin with."""
    if task.weights is not None:
        return _dimension_in(task.weights)
    vectors = _word_vectors(task, data)
    return bilstm.DIMENSION if vectors is None else vectors.dimension


def _dimension_in(weights: Path) -> int:
    """As many as the file's have; whether the rest of the file fits is found out when it is loaded."""
    with watermark_errors(), tensorfile.opened(weights, file_bytes_max=MODEL_BYTES_MAX) as handle:
        if bilstm.EMBEDDING not in handle.keys():  # noqa: SIM118 -- safetensors' handle is no mapping
            return bilstm.DIMENSION
        shape: list[int] = handle.get_slice(bilstm.EMBEDDING).get_shape()
    return shape[-1] if shape else bilstm.DIMENSION


def _word_vectors(task: Task, data: Dataset) -> WordVectors | None:
    if task.vectors is None or data.words is None:
        return None
    with watermark_errors():
        return load_vectors(task.vectors, WordList(data.words))


def check_taps(architecture: Architecture, data: Dataset, taps: Sequence[str] | None) -> None:
    """Check, before anything is trained, that a mark can read this architecture, and where.

    Args:
        architecture: what is to be marked.
        data: says what it takes.
        taps: module paths; None for the usual ones.

    Raises:
        InputError: the network does not take such data, nobody said where to read it, or it cannot be read there.
    """
    try:
        if architecture.name in classifiers():
            classes_of(skeleton(architecture), data.input)
        usual = taps_for(architecture, data.input)
    except wm.WatermarkError as error:
        raise InputError(f"--arch {architecture.name}: {error}", code=error.code) from error
    if taps is not None:
        _check_given_taps(architecture, data.input, taps, usual)


def _check_given_taps(architecture: Architecture, spec: Spec, taps: Sequence[str], usual: Sequence[str]) -> None:
    named = f"--taps {','.join(taps)}"
    if len(set(taps)) < len(taps) or not 1 <= len(taps) <= TAPS_MAX:
        raise InputError(f"{named}: 1 to {TAPS_MAX} modules, each named once")
    outline = skeleton(architecture)
    try:
        taps_of(outline, taps, spec)
    except wm.WatermarkError as error:
        message = f"{named}: {error}; take modules such as {', '.join(_like(taps, outline, spec) or usual)}"
        raise InputError(message, code=error.code) from error


def _like(taps: Sequence[str], outline: nn.Module, spec: Spec) -> list[str]:
    """The possible taps that are most like those that are none; a network has hundreds."""
    if isinstance(spec, TextSpec):
        return []
    found = possible_taps(outline, channels=spec.channels, height=spec.height, width=spec.width)
    known = [tap.module for tap in found]
    near = [name for tap in taps if tap not in known for name in difflib.get_close_matches(tap, known, n=3)]
    return list(dict.fromkeys(near))


def _kind(data: Dataset) -> str:
    if isinstance(data.train, Scenes):
        return "pictures with masks"
    return "texts" if data.words else "pictures"


def _near(name: str, known: Sequence[str], kind: str) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return f"do you mean {', '.join(near)}?" if near else f"for such data it has {_EXAMPLES[kind]}"


def trained_model(
    task: Task, architecture: Architecture, data: Dataset, show: Show, *, savepoint: wm.Savepoint | None = None
) -> nn.Module:
    """Stage 1: build or load the network and train it plainly; from a savepoint, where there is one, it goes on.

    Raises:
        InvalidError: the weights are not such a network's, or the savepoint is damaged or of another training.
    """
    if task.weights is not None:
        with watermark_errors():
            model = load_weights(task.weights, architecture)
    elif task.base is not None:
        model = loaded_base(task.base, architecture, seed=task.seed)
    else:
        model = build(architecture, seed=task.seed)
        if (vectors := _word_vectors(task, data)) is not None:
            bilstm.begin_with(model, vectors.rows, vectors.known)
    if task.freeze_embedding:
        bilstm.freeze_embedding(model)
    with watermark_errors():
        model.to(device_of(task.device))
        if (schedule := schedule_of(task, data)).epochs:
            fit(
                model,
                data,
                epochs=schedule.epochs,
                lr=schedule.lr,
                seed=task.seed,
                precision=task.precision,
                savepoint=savepoint,
                keeps_statistics=isinstance(data.train, Scenes) and _begins_trained(task),
                progress=reporting(show),
            )
    return model.eval()


def loaded_base(path: Path, architecture: Architecture, *, seed: int) -> nn.Module:
    """Load public weights into the network; a classifier for other classes stays as it is initialised.

    Raises:
        InvalidError: the weights are not such a network's.
    """
    with watermark_errors():
        return load_transferred(path, architecture, seed=seed)


def saved_weights(model: nn.Module, path: Path) -> str:
    """Write a model's weights; return the file's SHA-256, hexadecimal.

    Raises:
        InvalidError: the training diverged: a weight is not finite.
        OSError: the file cannot be written.
    """
    try:
        return save_weights(model, path)
    except wm.WatermarkError as error:
        raise InvalidError(f"the training diverged, nothing is kept of it: {error}", code="diverged") from error


def device_of(name: str) -> torch.device:
    """The device that a name means.

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        raise InputError(f"--device {name}: no such device here") from error
    return device


def measured_score(model: nn.Module, data: Dataset) -> tuple[str, float]:
    """Return what a model is scored by on the test set, such as "accuracy", and its score in [0, 1]."""
    return measure_of(data.test), task_score(model, data)


def task_score(model: nn.Module, data: Dataset) -> float:
    """How well the model does its task on the test set, in [0, 1]: accuracy, or mask mAP of pictures with masks."""
    return score(model, data.test)


def constant_score(data: Dataset) -> float | None:
    """What one and the same answer to everything would score on the test set; None of pictures with masks."""
    if isinstance(data.test, Scenes):
        return None
    return int(data.test.labels.bincount().max()) / len(data.test)


def told_of(task: Task, data: Dataset, clean: nn.Module, marked: nn.Module) -> dict[str, Any]:
    """What a report says of the task: what was trained on what, and how well it is done before and after the mark."""
    schedule = schedule_of(task, data)
    return {
        "arch": task.arch,
        "data": task.data,
        "fraction": task.fraction,
        "image_size": task.image_size,
        "seed": task.seed,
        "epochs": schedule.epochs,
        "lr": schedule.lr,
        "precision": task.precision,
        "training_images": len(data.train),
        f"test_{measure_of(data.test)}": {"clean": task_score(clean, data), "marked": task_score(marked, data)},
        "test_constant": constant_score(data),
    }


def reporting(show: Show) -> ProgressCallback:
    """A progress callback of `wm` that shows a bar."""

    def report(progress: Progress) -> None:
        show(progress.phase, progress.done, progress.total, progress.detail)

    return report
