"""Promised: a student learns what its teacher answers; who may only ask needs no labels."""

from dataclasses import replace

import pytest
import torch

from wm.attacks import ATTACKS, Stolen, attacked
from wm.data import Examples

pytestmark = pytest.mark.long

STUDENTS = ["distillation", "extraction_soft", "extraction_hard"]


@pytest.mark.parametrize(
    ("name", "reads_labels"), [("distillation", True), ("extraction_soft", False), ("extraction_hard", False)]
)
def test_only_distillation_reads_the_labels(stolen: Stolen, name: str, reads_labels) -> None:
    few = stolen.data.train.take(torch.arange(16))
    others = Examples(few.images, few.labels.flip(0))
    students = [
        attacked(ATTACKS[name], replace(stolen, data=replace(stolen.data, train=part)), strength=1, seed=1)
        for part in (few, others)
    ]
    weights = [student.get_parameter("fc.weight") for student in students]
    assert torch.equal(*weights) is not reads_labels


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.slow
def test_the_student_comes_to_agree_with_its_teacher(stolen: Stolen, answers, name: str) -> None:
    wanted = answers(stolen.model, stolen.data.test).argmax(1)
    agreement = [
        float(
            (answers(attacked(ATTACKS[name], stolen, strength=s, seed=1), stolen.data.test).argmax(1) == wanted)
            .float()
            .mean()
        )
        for s in (1, 40)
    ]
    assert agreement[1] > max(0.6, agreement[0] + 0.2)
