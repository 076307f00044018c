"""Promised: what docs/training.md shows runs as it stands, and does what the page says."""

from pathlib import Path

import pytest
import shown
import torch

import wm
from wm.randomness import seeded

PAGE = Path(__file__).parents[1] / "docs" / "training.md"
LIGHTNING, TRAINER = "With Lightning", "With Hugging Face's Trainer"


def ran(blocks: list[str], names: dict[str, object]) -> dict[str, object]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with seeded("the page"):
            shown.run(blocks, PAGE, names)
    finally:
        torch.set_num_threads(threads)
    return names


@pytest.mark.slow
def test_the_ten_lines_mark_a_network_that_no_catalogue_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ran(shown.blocks(PAGE, without=(LIGHTNING, TRAINER)), {})
    mark, found = names["mark"], names["found"]
    assert found.matched == mark.matched(names["model"]) >= 540
    assert (found.total, found.permutations_as_good) == (600, 0)
    assert all(control.matched <= 354 for control in found.controls)
    assert f"{found.matched} of 600" in capsys.readouterr().out
    assert sorted(path.name for path in Path("mymodel").iterdir()) == ["evidence.safetensors", "model.safetensors"]


def test_ten_lines_are_enough() -> None:
    marking = shown.blocks(PAGE)[1].split("key = ")[1]
    added = [line for line in marking.splitlines() if "mark" in line]
    assert len(added) <= 10


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("section", "extra"), [(LIGHTNING, "lightning"), (TRAINER, "transformers")])
@pytest.mark.filterwarnings("ignore")  # the trainers' own, such as that there are few workers for a loader
def test_a_trainer_marks_with_its_callback(
    section: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(extra, reason=f"{section} is NOT tested: the extra wmreg[{extra}] is missing")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    names = ran([shown.blocks(PAGE)[0], *shown.blocks(PAGE, only=section)], {})
    plan, callback, directory = names["plan"], names["callback"], Path(names["plan"].directory)
    builder = None if plan.architecture else names["Net"]
    paths = directory / "model.safetensors", directory / "evidence.safetensors"
    found = wm.verify(*paths, plan.watermark_key, control_seed=bytes(32), permutations=19, controls=1, builder=builder)
    assert found.matched == callback.report["matched"] >= 540
    assert found.permutations_as_good == 0
    assert all(control.matched <= 354 for control in found.controls)
    assert f"{found.matched} of 600" in capsys.readouterr().out
