"""Promised: what docs/architectures.md shows runs as it stands; each way to have a network verified leads there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import shown
import torch

from wm import architectures
from wm.randomness import seeded

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
OWN, ENTRY = "Verified by its owner", "An entry in the catalogue"


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ran(section: str, names: dict[str, object], part: slice = slice(None)) -> dict[str, object]:
    with seeded("the page"):
        shown.run(shown.blocks(PAGE, only=section)[part], PAGE, names)
    return names


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    shown.run(["import torch"], PAGE, names)
    return ran(OWN, names)


@pytest.fixture
def _fresh_lists() -> Iterator[None]:
    """The catalogue's lists are made once a process."""
    for listed in (architectures.names, architectures.classifiers):
        listed.cache_clear()
    yield
    for listed in (architectures.names, architectures.classifiers):
        listed.cache_clear()


def test_taps_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    ran("Taps", {})
    assert "features.0 16 112 112" in capsys.readouterr().out


@pytest.mark.slow
def test_an_owner_verifies_a_network_of_his_own_and_a_node_refuses_it(
    own: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert own["found"].matched >= 540
    assert own["found"].permutations_as_good == 0
    assert all(control.matched <= 354 for control in own["found"].controls)
    assert own["refusal"].code == "unknown_architecture"


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_lists")
def test_with_an_entry_in_the_catalogue_anybody_verifies_it(
    own: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(architectures.WatermarkError, match="no architecture 'plainnet'"):
        architectures.Architecture("plainnet")
    ran(ENTRY, own, slice(1))
    entries, further = own["CLASSIFIERS"], own["FURTHER"]
    monkeypatch.setattr(architectures, "_CLASSIFIERS", architectures._CLASSIFIERS | entries)
    monkeypatch.setattr(architectures, "_OURS", architectures._OURS | entries)
    monkeypatch.setattr(architectures, "_FURTHER", architectures._FURTHER | further)
    for listed in (architectures.names, architectures.classifiers):
        listed.cache_clear()
    assert "plainnet" in architectures.classifiers()
    ran(ENTRY, own, slice(1, None))
    assert own["entered"].matched >= 540
    assert all(control.matched <= 354 for control in own["entered"].controls)
    with pytest.raises(architectures.WatermarkError, match="width must be an integer in"):
        architectures.Architecture("plainnet", {"width": 513})


@pytest.mark.filterwarnings("ignore")  # those of importing transformers
def test_the_same_network_under_other_names_is_the_catalogues(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the renaming is NOT tested: the extra wmreg[transformers] is missing")
    names = ran("The same network under other names", {})
    built = architectures.build(architectures.Architecture("resnet18", {"num_classes": 10}), seed=1)
    assert list(names["network"].state_dict()) == list(built.state_dict())
