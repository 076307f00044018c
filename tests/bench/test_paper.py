"""The paper's tables: fragments become rows, the worst seed decides, and docs/results.md says what the files say."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.paper import merging, report, table
from bench.paper.plan import Piece, pieces
from bench.paper.settings import SETTINGS, SMALL
from bench.results import RESULTS, Goal, Row, beside_earlier, measured_in, summary

LOST = "task accuracy lost to the mark"


def a_piece(tmp_path: Path, *, group: str = "MNIST", seed: int = 1, figures: dict[str, float] | None = None) -> Piece:
    return Piece(
        group=group,
        seed=seed,
        name="owner",
        fragment=tmp_path / group / f"{seed}.json",
        measure=lambda: figures or {LOST: 0.1},
    )


def rows_of(tmp_path: Path, *seeds: dict[str, float], group: str = "MNIST") -> dict[str, Row]:
    done = []
    for number, figures in enumerate(seeds, start=1):
        piece = a_piece(tmp_path, group=group, seed=number, figures=figures)
        done.append((piece, piece.run()))
    return {row.metric: row for row in merging.rows(done)}


def test_a_row_is_the_median_with_its_spread_and_the_number_of_seeds(tmp_path: Path) -> None:
    row = rows_of(tmp_path, {LOST: 0.1}, {LOST: 0.5}, {LOST: -0.3})[f"MNIST: {LOST}"]

    assert (row.value, row.spread, row.repeats, row.met) == (0.1, (-0.3, 0.5), 3, True)


def test_one_bad_seed_misses_the_goal(tmp_path: Path) -> None:
    row = rows_of(tmp_path, {LOST: 0.1}, {LOST: 0.51}, {LOST: -0.3})[f"MNIST: {LOST}"]

    assert row.met is False


def test_a_figure_that_a_seed_lacks_has_fewer_repeats(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, {"spoil: mark fails at": 20.0}, {"spoil: mark held to": 80.0})

    assert {row.repeats for row in rows.values()} == {1}


@pytest.mark.parametrize(("group", "least"), [("MNIST", 1.0), ("CIFAR-10", 4.5), ("SST", 2.5)])
def test_the_goals_of_overwriting_are_those_of_the_papers_table_3(group: str, least: float) -> None:
    goal = merging.goal_of(group, "overwriting, 50 epochs: lost")

    assert goal is not None
    assert goal.holds([least])
    assert not goal.holds([least, least + 0.1])


def test_a_mark_under_another_key_has_no_goal_of_ninety_nine_per_cent() -> None:
    assert merging.goal_of("MNIST", "matched, marked, another key") is None
    assert merging.goal_of("MNIST", "matched, marked") is not None


def test_one_conviction_of_an_innocent_model_misses_the_goal(tmp_path: Path) -> None:
    name = "independent models: VERIFIED by the engine"
    rows = rows_of(tmp_path, {name: 0}, {name: 1}, group="false positives")

    assert rows[f"false positives: {name}"].met is False


def test_what_is_measured_alone_takes_its_place_in_the_result_and_leaves_the_rest(tmp_path: Path) -> None:
    before = list(rows_of(tmp_path / "before", {LOST: 0.1, "matched, marked": 100.0}).values())
    content = json.loads(json.dumps({"rows": [asdict(row) for row in before]}))
    now = list(rows_of(tmp_path / "now", {"matched, clean": 50.0, "matched, marked": 98.0}).values())

    merged = beside_earlier(now, content)

    assert [(row.metric, row.value) for row in merged] == [
        (f"MNIST: {LOST}", 0.1),
        ("MNIST: matched, marked", 98.0),
        ("MNIST: matched, clean", 50.0),
    ]
    assert merged[0] == before[0]
    assert merged[1].met is False


def test_a_result_names_every_commit_and_machine_once(tmp_path: Path) -> None:
    contents = [
        {"commit": "a, b", "machine": "one", "when": "2026-01-02"},
        {"commit": "b", "machine": "one", "when": "2026-01-03"},
        {"commit": "c", "machine": "other", "when": "2026-01-01"},
    ]

    assert measured_in(contents) == {"commit": "a, b, c", "machine": "one; other", "when": "2026-01-03"}


def test_a_goal_without_bounds_is_met_by_anything_and_a_bound_counts_itself() -> None:
    assert Goal(says="anything").holds([-1e9, 1e9])
    assert Goal(says="≥ 1", least=1).holds([1])
    assert not Goal(says="≥ 1", least=1).holds([0.999])


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    piece = a_piece(tmp_path)

    assert piece.result() is None
    piece.run()
    assert piece.result() == json.loads(piece.fragment.read_text())
    assert not piece.fragment.with_suffix(".partial").exists()


def test_an_interrupted_piece_leaves_no_fragment(tmp_path: Path) -> None:
    def fail() -> dict[str, float]:
        raise KeyboardInterrupt

    piece = Piece(group="MNIST", seed=1, name="owner", fragment=tmp_path / "owner.json", measure=fail)

    with pytest.raises(KeyboardInterrupt):
        piece.run()
    assert piece.result() is None


def test_without_data_there_is_nothing_to_measure(tmp_path: Path) -> None:
    assert list(pieces(SMALL, tmp_path, tmp_path / "work")) == []


def test_each_piece_has_a_fragment_of_its_own_and_the_owner_comes_first(tmp_path: Path) -> None:
    for name in ("small/mnist.npz", "sst", "glove"):
        (tmp_path / name).mkdir(parents=True)
    planned = list(pieces(SMALL, tmp_path, tmp_path / "work"))

    assert len({piece.fragment for piece in planned}) == len(planned)
    for group in ("MNIST", "SST"):
        assert next(piece.name for piece in planned if piece.group == group) == "owner"


def test_the_report_is_made_of_the_committed_results_and_not_typed_by_hand() -> None:
    paths = {name: RESULTS / f"paper-{name}.json" for name in SETTINGS}
    tables = [table.load(path, SETTINGS[name]) for name, path in paths.items() if path.exists()]

    assert (RESULTS.parent.parent / "docs" / "results.md").read_text() == report.text_of(tables)


def test_a_cell_says_that_its_goal_is_missed() -> None:
    good = summary("a", [98.0, 99.0], goal=Goal(says="≥ 98", least=98))
    bad = summary("a", [97.0, 99.0], goal=Goal(says="≥ 98", least=98))

    assert table.spelt({"value": good.value, "spread": good.spread, "met": good.met}, digits=0) == "98 [98, 99]"
    assert "not met" in table.spelt({"value": bad.value, "spread": bad.spread, "met": bad.met}, digits=0)
