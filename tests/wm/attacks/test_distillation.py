"""Promised: a student learns what its teacher answers; who may only ask needs no labels."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from wm.attacks import ATTACKS, Stolen, attacked
from wm.attacks.distillation import TEACHERS_SHARE, TEMPERATURE, distillation_loss
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


def test_the_loss_is_hintons_and_at_a_temperature_of_1_kims(stolen: Stolen) -> None:
    teacher, batch = stolen.model, stolen.data.train
    student = copy.deepcopy(teacher)
    torch.nn.init.zeros_(student.fc2.weight)
    with torch.no_grad():
        wanted, answers = teacher(batch.images), student(batch.images)
        of_attack, of_kim, of_labels = (
            distillation_loss(teacher, student, batch, temperature=temperature, teachers_share=share)
            for temperature, share in ((TEMPERATURE, TEACHERS_SHARE), (1.0, 0.7), (1.0, 0.0))
        )

    def divergence(temperature: float) -> torch.Tensor:
        teachers, students = (F.softmax(logits.double() / temperature, 1) for logits in (wanted, answers))
        return (teachers * (teachers / students).log()).sum(1).mean()

    hard = F.cross_entropy(answers, batch.labels)
    assert float(of_attack) == pytest.approx(float(0.9 * 16 * divergence(4) + 0.1 * hard), rel=1e-4)
    assert float(of_kim) == pytest.approx(float(0.7 * divergence(1) + 0.3 * hard), rel=1e-4)
    assert float(of_labels) == pytest.approx(float(hard))
    assert float(of_attack) != pytest.approx(float(of_kim), rel=0.05)


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
