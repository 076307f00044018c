"""Data sets, networks and trainings as the command line names them; the bridge to `wm`.

Importing this module imports torch, so verbs do it when they run. Errors of `wm` become the client's here.
"""

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

import wm
from client.errors import InputError, InvalidError
from client.task import Task
from wm import data as datasets
from wm.architectures import Architecture, build, classifiers, default_taps
from wm.progress import Progress, ProgressCallback
from wm.schemes import mtlsign
from wm.training import accuracy, fit
from wm.weights import load_transferred, load_weights, save_weights

DIGITS = "digits"
FROM_CATALOGUE = "resnet18, resnet50, resnext50_32x4d or wide_resnet50_2"
Show = Callable[[str, int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A plain training: passes over the data, 0 for none, and Adam's first learning rate."""

    epochs: int
    lr: float


FROM_SCRATCH = Schedule(epochs=6, lr=1e-3)
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


def schedule_of(task: Task) -> Schedule:
    """The plain training that comes first."""
    usual = FROM_SCRATCH if task.weights is None and task.base is None else FINE_TUNING
    return usual if task.epochs is None else replace(usual, epochs=task.epochs)


def load_data(task: Task) -> datasets.Dataset:
    """Load the data set, its training set cut down to the task's fraction.

    Raises:
        InputError: neither "digits" nor an existing file.
        InvalidError: not such an .npz file.
    """
    if task.data == DIGITS:
        whole = datasets.digits()
    else:
        path = Path(task.data)
        if path.suffix != ".npz" or not path.is_file():
            raise InputError(f"{task.data}: no data set; give {DIGITS}, or an existing .npz file")
        with watermark_errors(path):
            whole = datasets.load_npz(path)
    return replace(whole, train=datasets.fraction_of(whole.train, task.fraction, seed=task.seed))


def architecture_of(task: Task, data: datasets.Dataset) -> Architecture:
    """The catalogue's entry for this task.

    Raises:
        InputError: the catalogue has no such name.
        InvalidError: the data set has too few or too many classes.
    """
    if task.arch not in classifiers():
        raise InputError(f"--arch {task.arch}: no classifier of the catalogue; {_near(task.arch, classifiers())}")
    with watermark_errors():
        return Architecture(task.arch, {"num_classes": data.classes})


def check_scheme(scheme: str) -> None:
    """Check that there is such a watermark scheme; raises InputError."""
    if scheme != mtlsign.NAME:
        raise InputError(f"--scheme {scheme}: no such watermark scheme; there is {mtlsign.NAME}")


def check_taps(architecture: Architecture, settings: wm.EmbedSettings | None) -> None:
    """Check that it is known where a mark would read this architecture, before it is trained; raises InputError."""
    if settings is not None and settings.taps is not None:
        return
    try:
        default_taps(architecture)
    except wm.WatermarkError as error:
        message = (
            f"--arch {architecture.name}: no default taps for a watermark; take a ResNet, a ResNeXt or a Wide ResNet"
        )
        raise InputError(message, code=error.code) from error


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return f"do you mean {', '.join(near)}?" if near else f"it has torchvision's classifiers, such as {FROM_CATALOGUE}"


def trained_model(task: Task, architecture: Architecture, data: datasets.Dataset, show: Show) -> nn.Module:
    """Stage 1: build or load the network and train it plainly.

    Raises:
        InvalidError: the weights are not such a network's.
    """
    if task.weights is not None:
        with watermark_errors():
            model = load_weights(task.weights, architecture)
    elif task.base is not None:
        model = loaded_base(task.base, architecture, seed=task.seed)
    else:
        model = build(architecture, seed=task.seed)
    with watermark_errors():
        model.to(device_of(task.device))
        if schedule_of(task).epochs:
            schedule = schedule_of(task)
            fit(model, data, epochs=schedule.epochs, lr=schedule.lr, seed=task.seed, progress=reporting(show))
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


def task_accuracy(model: nn.Module, data: datasets.Dataset) -> float:
    """Share of the test set that the model classifies as it should, in [0, 1]."""
    return accuracy(model, data.test.images, data.test.labels)


def reporting(show: Show) -> ProgressCallback:
    """A progress callback of `wm` that shows a bar."""

    def report(progress: Progress) -> None:
        show(progress.phase, progress.done, progress.total, progress.detail)

    return report
