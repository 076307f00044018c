"""Distillation and extraction: train a fresh network to answer as the stolen one does.

* distillation, by who holds the weights and labelled data: the teacher's softened answers and the true labels;
* extraction_soft, by who may only ask: the probabilities that the teacher answers with, no labels;
* extraction_hard, by who is told the class only.

All three ask on the thief's own pictures. Nothing of the weights is taken over, so a mark that is read in the weights
cannot come along, however well the student learns: what counts is the accuracy that such a thief ends with.

Source: Hinton et al. 2015 (T² weighs the softened part); Tramèr et al. 2016.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.architectures import build
from wm.attacks.attack import Attack, Scale, Stolen
from wm.attacks.tuning import Loss, Tuning, tune
from wm.backbone import device_of
from wm.data import Examples
from wm.progress import ProgressCallback
from wm.randomness import key_of

TEMPERATURE = 4.0
TEACHERS_SHARE = 0.9  # of the loss; the rest is the true labels'
_LR = 1e-3  # a training from scratch
_Learn = Callable[[nn.Module, nn.Module, Examples], Tensor]  # teacher, student and batch to a loss


def _distil(teacher: nn.Module, student: nn.Module, batch: Examples) -> Tensor:
    answers, wanted = _both(teacher, student, batch)
    soft = F.kl_div(F.log_softmax(answers / TEMPERATURE, 1), F.softmax(wanted / TEMPERATURE, 1), reduction="batchmean")
    hard = F.cross_entropy(answers, batch.labels.to(answers.device))
    return TEACHERS_SHARE * TEMPERATURE**2 * soft + (1 - TEACHERS_SHARE) * hard


def _extract_soft(teacher: nn.Module, student: nn.Module, batch: Examples) -> Tensor:
    answers, wanted = _both(teacher, student, batch)
    return F.cross_entropy(answers, F.softmax(wanted, 1))


def _extract_hard(teacher: nn.Module, student: nn.Module, batch: Examples) -> Tensor:
    answers, wanted = _both(teacher, student, batch)
    return F.cross_entropy(answers, wanted.argmax(1))


def _both(teacher: nn.Module, student: nn.Module, batch: Examples) -> tuple[Tensor, Tensor]:
    images = batch.images.to(device_of(teacher))
    with torch.no_grad():
        wanted = teacher(images)
    return student(images), wanted


def _run(stolen: Stolen, epochs: float, seed: int, progress: ProgressCallback, *, learn: _Learn) -> nn.Module:
    teacher = stolen.model.eval()
    student = build(stolen.architecture, seed=key_of(seed, "student")).to(device_of(teacher))
    loss: Loss = partial(learn, teacher)
    return tune(student, stolen.data.train, Tuning(epochs=int(epochs), lr=_LR, seed=seed, loss=loss), progress)


_SCALE = Scale(
    unit="epochs on the thief's pictures", weakest=1, strongest=1000, usual=(60,), is_whole=True
)  # one strength: the mark is gone at any, and more epochs only make the student better
DISTILLATION = Attack(
    name="distillation",
    summary="train a fresh network on the model's softened answers and the true labels",
    scale=_SCALE,
    run=partial(_run, learn=_distil),
)
EXTRACTION_SOFT = Attack(
    name="extraction_soft",
    summary="train a fresh network on the probabilities that the model answers with",
    scale=_SCALE,
    run=partial(_run, learn=_extract_soft),
)
EXTRACTION_HARD = Attack(
    name="extraction_hard",
    summary="train a fresh network on the classes that the model answers with",
    scale=_SCALE,
    run=partial(_run, learn=_extract_hard),
)
