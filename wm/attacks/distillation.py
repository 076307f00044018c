"""Distillation and extraction: train a fresh network to answer as the stolen one does.

* distillation, by who holds the weights and labelled data: the teacher's softened answers and the true labels;
* extraction_soft, by who may only ask: the probabilities that the teacher answers with, no labels;
* extraction_hard, by who is told the class only.

All three ask on the thief's own pictures. Nothing of the weights is taken over, so a mark that is read in the weights
cannot come along, however well the student learns: what counts is the accuracy that such a thief ends with.

The attack's loss is Hinton's, at T = 4 and with 0.9 of it the teacher's. Others' students have other numbers in the
same loss (`distillation_loss`): those of Kim et al. 2023 have T = 1 and 0.7.

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

TEMPERATURE = 4.0  # T of the attack
TEACHERS_SHARE = 0.9  # of the attack's loss; the rest is the true labels'
_LR = 1e-3  # a training from scratch
_Learn = Callable[[nn.Module, nn.Module, Examples], Tensor]  # teacher, student and batch to a loss


def distillation_loss(
    teacher: nn.Module, student: nn.Module, batch: Examples, *, temperature: float, teachers_share: float
) -> Tensor:
    """Hold a student's answers against its teacher's and against the true labels.

    T² · share · KL(teacher's softened answers || student's) + (1 - share) · CE(true labels). Softened answers are the
    softmax of the logits divided by T; at T = 1 they are the probabilities themselves, and T² weighs nothing. With a
    teacher, a temperature and a share given (`functools.partial`) it is a `Loss` to tune by.

    Args:
        teacher: in evaluation mode; no gradients reach it.
        student: on the teacher's device.
        batch: what both are asked about.
        temperature: T, above 0; `TEMPERATURE` of the attack, 1 of Kim et al.
        teachers_share: in [0, 1]; `TEACHERS_SHARE` of the attack, 0.7 of Kim et al.

    Returns:
        A scalar with a graph; the mean over the batch.

    Source: Hinton et al. 2015, section 2; Kim et al. 2023, whose experiment is the case T = 1.
    """
    answers, wanted = _both(teacher, student, batch)
    soft = F.kl_div(F.log_softmax(answers / temperature, 1), F.softmax(wanted / temperature, 1), reduction="batchmean")
    hard = F.cross_entropy(answers, batch.labels.to(answers.device))
    return teachers_share * temperature**2 * soft + (1 - teachers_share) * hard


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
    run=partial(_run, learn=partial(distillation_loss, temperature=TEMPERATURE, teachers_share=TEACHERS_SHARE)),
    needs_classes=True,
)
EXTRACTION_SOFT = Attack(
    name="extraction_soft",
    summary="train a fresh network on the probabilities that the model answers with",
    scale=_SCALE,
    run=partial(_run, learn=_extract_soft),
    needs_classes=True,
)
EXTRACTION_HARD = Attack(
    name="extraction_hard",
    summary="train a fresh network on the classes that the model answers with",
    scale=_SCALE,
    run=partial(_run, learn=_extract_hard),
    needs_classes=True,
)
