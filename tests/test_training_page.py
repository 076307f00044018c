"""Promised: what docs/training.md shows runs as it stands, and does what the page says."""

import re
from pathlib import Path

import pytest
import torch

from wm.randomness import seeded

PAGE = Path(__file__).parents[1] / "docs" / "training.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_ten_lines_mark_a_network_that_no_catalogue_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "training_page"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with seeded("the page"):
            for block in blocks():
                exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 -- our own page
    finally:
        torch.set_num_threads(threads)
    mark, found = names["mark"], names["found"]
    assert found.matched == mark.matched(names["model"]) >= 540
    assert (found.total, found.permutations_as_good) == (600, 0)
    assert all(control.matched <= 354 for control in found.controls)
    assert f"{found.matched} of 600" in capsys.readouterr().out
    assert sorted(path.name for path in Path("mymodel").iterdir()) == ["evidence.safetensors", "model.safetensors"]


def test_ten_lines_are_enough() -> None:
    marking = blocks()[1].split("key = ")[1]
    added = [line for line in marking.splitlines() if "mark" in line]
    assert len(added) <= 10
