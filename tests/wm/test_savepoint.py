"""Promised: a savepoint is whole or absent, its owner's alone, and only the very training it is of goes on from it."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import wm
from wm import tensorfile
from wm.errors import WatermarkError
from wm.randomness import EndlessOrder, generator
from wm.savepoint import Savepoint, fill, fill_optimizer, fingerprint, optimizer_state, prefixed, under

CONDITIONS = {"seed": "1", "data set": fingerprint(torch.zeros(3)), "kind": "test"}
STATE = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.tensor(7), "none": torch.empty(0)}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    savepoint = Savepoint(path)
    assert savepoint.begin(CONDITIONS) is None
    savepoint.write(STATE)
    return path


def code_of(path: Path, conditions: dict[str, str] = CONDITIONS) -> str:
    with pytest.raises(WatermarkError) as caught:
        Savepoint(path).begin(conditions)
    return caught.value.code


def test_what_was_written_is_read_by_the_same_training(written: Path) -> None:
    state = Savepoint(written).begin(dict(reversed(CONDITIONS.items())))
    assert sorted(state) == sorted(STATE)
    assert all(torch.equal(state[name], value) and state[name].dtype == value.dtype for name, value in STATE.items())


def test_it_is_its_owners_alone_and_nothing_lies_beside_it(written: Path) -> None:
    assert written.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in written.parent.iterdir()] == ["state"]
    Savepoint(written).remove()
    assert list(written.parent.iterdir()) == []
    Savepoint(written).remove()


def test_what_a_kill_left_half_written_is_not_read_and_goes_away(written: Path) -> None:
    (written.parent / ".state.partial").write_bytes(b"half")
    savepoint = Savepoint(written)
    assert savepoint.begin(CONDITIONS) is not None
    savepoint.write({"a": torch.ones(1)})
    assert [path.name for path in written.parent.iterdir()] == ["state"]
    assert Savepoint(written).begin(CONDITIONS).keys() == {"a"}


def test_a_write_that_fails_leaves_the_last_state(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    savepoint = Savepoint(written)
    savepoint.begin(CONDITIONS)
    (written.parent / ".state.partial").mkdir()
    with pytest.raises(IsADirectoryError):
        savepoint.write({"a": torch.ones(1)})
    assert Savepoint(written).begin(CONDITIONS).keys() == STATE.keys()


def test_no_bit_of_it_may_be_another(written: Path) -> None:
    whole = written.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        written.write_bytes(damaged)
        with pytest.raises(WatermarkError):
            Savepoint(written).begin(CONDITIONS)
    written.write_bytes(whole)
    assert Savepoint(written).begin(CONDITIONS) is not None


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_one_that_was_cut_short_is_refused(written: Path, kept: int) -> None:
    written.write_bytes(written.read_bytes()[:kept])
    assert code_of(written) == "malformed"


@pytest.mark.parametrize("metadata", [None, {"format": "wmreg-savepoint/2"}, {"format": "wmreg-savepoint/1"}])
def test_another_file_is_no_savepoint_and_stays_as_it_is(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "model.safetensors"
    tensorfile.write(path, STATE, metadata)
    before = path.read_bytes()
    assert code_of(path) == "malformed"
    assert path.read_bytes() == before


def test_with_another_condition_it_is_refused_and_which_is_said(written: Path) -> None:
    other = fingerprint(torch.ones(3))
    for changed, message in [
        ({"seed": "2"}, r"another seed \(1 there, 2 here\)"),
        ({"data set": other}, "another data set: begin as"),
        ({"watermark key": other}, "another watermark key: begin as"),
    ]:
        with pytest.raises(WatermarkError, match=message) as caught:
            Savepoint(written).begin(CONDITIONS | changed)
        assert caught.value.code == "mismatch"


def test_conditions_cannot_be_changed_by_an_editor(written: Path) -> None:
    with tensorfile.opened(written, file_bytes_max=1 << 20) as handle:
        metadata = handle.metadata()
    metadata["conditions"] = json.dumps(CONDITIONS | {"seed": "2"}, sort_keys=True)
    written.write_bytes(safetensors.torch.save(STATE, metadata))
    assert code_of(written, CONDITIONS | {"seed": "2"}) == "malformed"


@pytest.mark.parametrize("conditions", ["", "{", "[]", '"x"', "null", '{"seed": 0}', "[" * 5000])
def test_conditions_that_are_no_texts_by_name_are_refused(tmp_path: Path, conditions: str) -> None:
    metadata = {
        "format": "wmreg-savepoint/1",
        "conditions": conditions,
        "sha256": fingerprint(conditions, dict(sorted(STATE.items()))),
    }
    tensorfile.write(tmp_path / "state", STATE, metadata)
    assert code_of(tmp_path / "state") == "malformed"


def test_it_is_due_when_time_has_passed_and_with_none_to_pass_always(tmp_path: Path) -> None:
    often, seldom = Savepoint(tmp_path / "often", every_s=0), Savepoint(tmp_path / "seldom", every_s=3600)
    assert often.is_due()
    assert not seldom.is_due()


def test_a_fingerprint_tells_types_places_and_bits_apart() -> None:
    values = [
        (),
        ("",),
        (b"",),
        (None,),
        (0,),
        (0.0,),
        (False,),
        ("a", "b"),
        ("ab",),
        (["a"], "b"),
        (["a", "b"],),
        (torch.zeros(2),),
        (torch.zeros(2, 1),),
        (torch.zeros(2, dtype=torch.int32),),
        (-torch.zeros(2),),
        (wm.EmbedSettings(),),
        (wm.EmbedSettings(steps=61),),
        ({"a": 1},),
    ]
    assert len({fingerprint(*value) for value in values}) == len(values)
    assert fingerprint(torch.eye(3).t()) == fingerprint(torch.eye(3))
    with pytest.raises(TypeError, match="no fingerprint"):
        fingerprint(nn.Linear(1, 1))


@pytest.mark.parametrize(("total", "batch", "only_full"), [(10, 4, False), (10, 4, True), (3, 5, True), (1, 1, False)])
def test_an_order_goes_on_from_any_place(total: int, batch: int, only_full: bool) -> None:
    def made() -> EndlessOrder:
        return EndlessOrder(total, batch, generator("order"), only_full=only_full)

    order, drawn, states = made(), [], []
    for _ in range(12):
        states.append({name: value.clone() for name, value in order.state().items()})
        drawn.append(next(order).tolist())
    for begin, state in enumerate(states):
        other = made()
        next(other)
        other.restore(state)
        assert [next(other).tolist() for _ in range(begin, 12)] == drawn[begin:]


def test_an_optimiser_goes_on_in_the_memory_format_of_its_parameters() -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        nn.init.constant_(model.weight, 0.1)
        nn.init.constant_(model.bias, 0.1)
        return model, torch.optim.Adam(model.parameters(), lr=0.1, fused=True)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.arange(75.0).reshape(1, 3, 5, 5)).square().sum().backward()
        optimizer.step()

    (model, optimizer), (other, others) = made(), made()
    step(model, optimizer)
    fill(other.state_dict(), {name: value.contiguous() for name, value in model.state_dict().items()})
    fill_optimizer(others, {name: value.contiguous() for name, value in optimizer_state(optimizer).items()})
    assert others.state[other.weight]["exp_avg"].is_contiguous(memory_format=torch.channels_last)
    step(model, optimizer)
    step(other, others)
    assert torch.equal(model.weight, other.weight)


def test_what_does_not_fit_is_refused() -> None:
    model = nn.Linear(2, 2)
    good = {name: value.clone() for name, value in model.state_dict().items()}
    fill(model.state_dict(), good)
    for changes in ({"more": torch.ones(1)}, {"bias": torch.ones(3)}, {"bias": torch.ones(2, dtype=torch.float64)}):
        with pytest.raises(WatermarkError, match="state"):
            fill(model.state_dict(), good | changes)
    with pytest.raises(WatermarkError, match="no parameter 2"):
        fill_optimizer(torch.optim.Adam(model.parameters()), {"2.step": torch.tensor(1.0)})


def test_parts_of_a_state_are_told_apart_by_their_names() -> None:
    state = {**prefixed("a", {"x": torch.ones(1)}), **prefixed("ab", {"x.y": torch.zeros(1)})}
    assert sorted(state) == ["a.x", "ab.x.y"]
    assert under("a", state).keys() == {"x"}
