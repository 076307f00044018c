"""The sweep of all attacks: what a report becomes, and that docs/attacks.md says what the committed result says."""

import json
from types import ModuleType

import pytest

from bench import attacks, segmentation, specificity
from bench.pages import put
from bench.results import RESULTS

MARKED = {"matched": 600, "task_accuracy": 0.98}


def point(strength: float, matched: int | None, outcome: str, **more: object) -> dict[str, object]:
    return {"strength": strength, "matched": matched, "outcome": outcome, "task_accuracy": 0.9 - strength / 10, **more}


def report(*points: dict[str, object], forged: tuple[dict[str, object], ...] = ()) -> dict[str, object]:
    forgeries = [{"name": "public_base", "points": list(forged)}]
    return {"marked": MARKED, "attacks": [{"name": "ftal", "points": list(points)}], "forgeries": forgeries}


def test_an_attack_tells_where_the_mark_fails_and_what_it_held_to() -> None:
    found = attacks.figures_of(report(point(1, 600, "VERIFIED"), point(2, 450, "VERIFIED"), point(3, 380, "REFUTED")))

    assert (found["ftal: holds to"], found["ftal: holds to, matched"]) == (2, 450)
    assert (found["ftal: fails at"], found["ftal: fails at, matched"]) == (3, 380)
    assert found["ftal 2: VERIFIED"] == 1
    assert found["ftal 3: VERIFIED"] == 0


def test_a_mark_that_held_to_the_end_failed_nowhere() -> None:
    found = attacks.figures_of(report(point(1, 600, "VERIFIED")))

    assert "ftal: fails at" not in found


def test_what_cannot_be_read_has_no_count() -> None:
    found = attacks.figures_of(report(point(1, None, "UNVERIFIABLE")))

    assert found["ftal: fails at"] == 1
    assert "ftal: fails at, matched" not in found


def test_a_forgery_is_told_with_and_without_the_base() -> None:
    known = point(1, 590, "REFUTED")
    found = attacks.figures_of(report(forged=(point(1, 590, "VERIFIED", with_base_as_control=known),)))

    assert (found["public_base 1: VERIFIED"], found["public_base 1, base known: VERIFIED"]) == (1, 0)


@pytest.mark.parametrize("bench", [attacks, segmentation, specificity])
def test_the_page_is_made_of_the_committed_result_and_not_typed_by_hand(bench: ModuleType) -> None:
    content = json.loads((RESULTS / f"{bench.__name__.rpartition('.')[2]}.json").read_text())
    page = bench.PAGE.read_text()

    assert bench.page(page, content) == page


def test_marks_with_nothing_between_them_are_filled_and_what_follows_stays() -> None:
    page = "a\n<!-- figures: one -->\n<!-- end of figures -->\nb\n<!-- figures: two -->\n<!-- end of figures -->\nc\n"

    assert put(page, "one", "1").replace("\n", " ") == (
        "a <!-- figures: one --> 1 <!-- end of figures --> b <!-- figures: two --> <!-- end of figures --> c "
    )
