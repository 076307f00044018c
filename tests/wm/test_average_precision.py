"""Promised: mean average precision is what COCO's own program computes, and what one computes by hand."""

import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from wm.average_precision import Found, Truth, mask_overlaps, mean_average_precision

SIDE = 20


def box(left: int, top: int, right: int, bottom: int) -> torch.Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def found(*each: tuple[float, int, torch.Tensor]) -> Found:
    scores, labels, masks = zip(*each, strict=True) if each else ((), (), ())
    stacked = torch.stack(masks) if masks else torch.zeros(0, SIDE, SIDE, dtype=torch.bool)
    return Found(torch.tensor(scores), torch.tensor(labels, dtype=torch.int64), stacked)


def truth(*each: tuple[int, torch.Tensor]) -> Truth:
    labels, masks = zip(*each, strict=True) if each else ((), ())
    stacked = torch.stack(masks) if masks else torch.zeros(0, SIDE, SIDE, dtype=torch.bool)
    return torch.tensor(labels, dtype=torch.int64), stacked


FIRST, SECOND, THIRD = box(0, 0, 10, 10), box(10, 10, 20, 20), box(0, 10, 10, 20)


def test_masks_overlap_by_their_common_part_of_all() -> None:
    overlaps = mask_overlaps(torch.stack([FIRST, box(5, 0, 15, 10), box(0, 0, 0, 0)]), torch.stack([FIRST, SECOND]))
    assert overlaps.tolist() == [[1, 0], [50 / 150, 0], [0, 0]]


def test_what_is_found_exactly_counts_in_full_and_nothing_for_nothing() -> None:
    there = [truth((1, FIRST), (2, SECOND))]
    assert mean_average_precision([found((0.9, 1, FIRST), (0.2, 2, SECOND))], there) == 1
    assert mean_average_precision([found()], there) == 0
    assert mean_average_precision([found((0.9, 2, FIRST), (0.2, 1, SECOND))], there) == 0  # the other class


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        # Right, wrong, right, of three objects: precision 1 up to recall 1/3 (34 recalls), 2/3 up to 2/3 (33), then 0.
        (((0.9, FIRST), (0.8, box(0, 0, 2, 2)), (0.7, SECOND)), (34 + 33 * 2 / 3) / 101),
        # The wrong one last changes nothing at the recalls before it.
        (((0.9, FIRST), (0.7, SECOND), (0.1, box(0, 0, 2, 2))), 67 / 101),
        # The wrong one first: precision never exceeds 2/3, at the second right one, and holds for all before.
        (((0.95, box(0, 0, 2, 2)), (0.9, FIRST), (0.8, SECOND)), 67 * 2 / 3 / 101),
        # One object found twice: the second time is wrong.
        (((0.9, FIRST), (0.8, FIRST), (0.7, SECOND)), (34 + 33 * 2 / 3) / 101),
    ],
)
def test_precision_over_recall_is_what_one_computes_by_hand(
    answer: tuple[tuple[float, torch.Tensor], ...], expected: float
) -> None:
    there = [truth((1, FIRST), (1, SECOND), (1, THIRD))]
    given = [found(*((score, 1, mask) for score, mask in answer))]
    assert mean_average_precision(given, there, [0.5]) == pytest.approx(expected)


def test_an_overlap_counts_from_the_least_one_on() -> None:
    there, given = [truth((1, FIRST))], [found((0.9, 1, box(0, 0, 10, 8)))]  # IoU 0.8
    assert mean_average_precision(given, there, [0.8]) == 1
    assert mean_average_precision(given, there, [0.81]) == 0
    assert mean_average_precision(given, there) == pytest.approx(0.7)  # seven of COCO's ten are up to 0.8


def test_the_best_score_takes_the_object_whatever_its_overlap() -> None:
    there = [truth((1, FIRST))]
    given = [found((0.5, 1, FIRST), (0.9, 1, box(0, 0, 10, 6)))]  # the better mask comes too late: wrong
    assert mean_average_precision(given, there, [0.5]) == 1
    assert mean_average_precision(given, there, [0.7]) == pytest.approx(0.5)


def test_pictures_are_ranked_together_and_keep_their_objects() -> None:
    there = [truth((1, FIRST)), truth((1, SECOND))]
    crossed = [found((0.9, 1, SECOND)), found((0.8, 1, FIRST))]
    assert mean_average_precision(crossed, there, [0.5]) == 0
    behind = [found((0.6, 1, FIRST)), found((0.9, 1, FIRST), (0.5, 1, SECOND))]  # wrong, right, right
    assert mean_average_precision(behind, there, [0.5]) == pytest.approx(2 / 3)


def test_a_class_without_objects_does_not_count_and_none_at_all_is_refused() -> None:
    assert mean_average_precision([found((0.9, 1, FIRST), (0.8, 3, SECOND))], [truth((1, FIRST))]) == 1
    with pytest.raises(ValueError, match="no picture has an object"):
        mean_average_precision([found((0.9, 1, FIRST))], [truth()])


def test_answers_for_other_pictures_and_overlaps_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="2 answers for 1"):
        mean_average_precision([found(), found()], [truth((1, FIRST))])
    for overlaps in ([], [0.0], [1.01]):
        with pytest.raises(ValueError, match="overlaps lie"):
            mean_average_precision([found()], [truth((1, FIRST))], overlaps)


@pytest.mark.parametrize("seed", range(6))
def test_it_is_what_cocos_own_program_computes(seed: int) -> None:
    draws = np.random.default_rng(seed)
    there = [drawn_truth(draws) for _ in range(12)]
    given = [drawn_answer(labels, masks, draws) for labels, masks in there]
    theirs = coco_statistics(given, there)
    assert 0.05 < theirs[0] < theirs[1] < 1
    assert mean_average_precision(given, there) == pytest.approx(theirs[0], abs=1e-9)
    assert mean_average_precision(given, there, [0.5]) == pytest.approx(theirs[1], abs=1e-9)


def drawn_box(draws: np.random.Generator) -> torch.Tensor:
    left, top = draws.integers(0, 14, 2)
    return box(left, top, *(int(start + draws.integers(3, 7)) for start in (left, top)))


def drawn_truth(draws: np.random.Generator) -> Truth:
    return truth(*((int(draws.integers(1, 4)), drawn_box(draws)) for _ in range(draws.integers(1, 5))))


def drawn_answer(labels: torch.Tensor, masks: torch.Tensor, draws: np.random.Generator) -> Found:
    """Most objects a little displaced, some twice, and things that are not there; few scores, some equal."""
    near = [
        (label, mask.roll(int(draws.integers(-1, 2)), 1)) for label, mask in zip(labels.tolist(), masks, strict=True)
    ]
    wrong = [(int(draws.integers(1, 4)), drawn_box(draws)) for _ in range(2)]
    kept = [each for each in (*near, *near, *wrong) if draws.random() < 0.8]
    scores = draws.permutation(len(kept)) / 16 + draws.random(len(kept)) / 64
    return found(*((float(score), *each) for score, each in zip(scores, kept, strict=True)))


def coco_statistics(given: list[Found], there: list[Truth]) -> list[float]:
    """Mean average precision over COCO's overlaps, and at 0.5, by pycocotools."""
    annotations, results = [], []
    for image, (labels, masks) in enumerate(there, start=1):
        for label, mask in zip(labels.tolist(), masks, strict=True):
            coded = run_lengths(mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": label,
                    "segmentation": coded,
                    "area": float(mask.sum()),
                    "bbox": coco_mask.toBbox(coded).tolist(),
                    "iscrowd": 0,
                }
            )
    for image, answer in enumerate(given, start=1):
        for score, label, mask in zip(answer.scores.tolist(), answer.labels.tolist(), answer.masks, strict=True):
            results.append({"image_id": image, "category_id": label, "segmentation": run_lengths(mask), "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {
            "info": {},
            "images": [{"id": image, "height": SIDE, "width": SIDE} for image in range(1, len(there) + 1)],
            "annotations": annotations,
            "categories": [{"id": label, "name": str(label)} for label in range(1, 4)],
        }
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats[:2])


def run_lengths(mask: torch.Tensor) -> dict[str, object]:
    return coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
