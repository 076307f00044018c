"""Promised: only the sign of an answer counts, and nothing that is not a number passes for an answer."""

import pytest
import torch

from wm.branch import agreements, count_matched


def test_a_positive_margin_is_label_one_and_zero_is_label_zero() -> None:
    margins = torch.tensor([2.0, -1.0, 0.0, 0.0])
    assert agreements(margins, torch.tensor([True, True, False, True])).tolist() == [True, False, True, False]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_an_answer_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        agreements(torch.tensor([value]), torch.tensor([False]))


def test_answers_for_another_number_of_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="answers for"):
        agreements(torch.zeros(3), torch.zeros(2, dtype=torch.bool))


def test_the_marked_model_answers_its_own_key_and_no_other(owner) -> None:
    embedding = owner.embedding
    assert count_matched(embedding.model, embedding.head, embedding.info, owner.key) >= 95
    assert count_matched(embedding.model, embedding.head, embedding.info, owner.other_key) <= 75
