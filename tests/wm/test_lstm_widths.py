"""Promised: a Bi-LSTM of other widths is rebuilt from its file if they fit each other, and refused if any lies."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from wm import tensorfile
from wm.architectures import Architecture, build, default_taps, skeleton
from wm.attacks.dummy_neurons import widen
from wm.backbone import features_in_evaluation
from wm.errors import WatermarkError
from wm.info import Info, Probing
from wm.randomness import generator
from wm.symmetries.channels import free_streams
from wm.tap_shapes import taps_of
from wm.triggers import TextSpec, make_probes
from wm.weights import check_backbone, load_backbone
from wm.widths import CHANNELS_MAX

ARCHITECTURE = Architecture("bilstm", {"vocabulary": 100, "dimension": 6, "hidden": 5, "num_classes": 3})
SPEC = TextSpec(20, 100, "0" * 64)
FIRST, SECOND = "layers.0.lstm", "layers.1.lstm"
Tensors = dict[str, Tensor]


def info(*, reference: bool = True) -> Info:
    return Info(
        scheme="mtlsign",
        architecture=ARCHITECTURE,
        taps=tuple(taps_of(skeleton(ARCHITECTURE), default_taps(ARCHITECTURE), SPEC)),
        pooling=4,
        hidden=8,
        triggers=100,
        gamma="0.7",
        input=SPEC,
        reference=Probing(probes=64, pooling=2) if reference else None,
    )


@pytest.fixture
def wide() -> Tensors:
    """Of 7 units in each direction instead of 5."""
    model = build(ARCHITECTURE, seed=1)
    for stream in reversed(free_streams(model)):
        widen(model, stream, dummies=2, source=generator(1))
    return dict(model.state_dict())


def saved(tmp_path: Path, tensors: Tensors) -> Path:
    path = tmp_path / "suspect.safetensors"
    tensorfile.write(path, {name: tensor.contiguous() for name, tensor in tensors.items()})
    return path


def code_of(tmp_path: Path, tensors: Tensors, of: Info) -> str:
    path, codes = saved(tmp_path, tensors), set()
    for load in (load_backbone, check_backbone):
        with pytest.raises(WatermarkError) as caught:
            load(path, of)
        codes.add(caught.value.code)
    (code,) = codes
    return code


def read(model: torch.nn.Module) -> Tensor:
    return features_in_evaluation(model, default_taps(ARCHITECTURE), make_probes(SPEC, count=8), pooling=1)


def test_a_widened_network_computes_what_it_did(tmp_path: Path, wide: Tensors) -> None:
    found, plain = read(load_backbone(saved(tmp_path, wide), info())), read(build(ARCHITECTURE, seed=1))
    assert (found.shape, plain.shape) == ((8, 56), (8, 40))
    apart = (found[:, None, :] - plain[:, :, None]).abs().amin(2)  # each unit of the plain one is somewhere in it
    assert apart.max() < 1e-6


def test_without_a_reference_other_units_are_refused(tmp_path: Path, wide: Tensors) -> None:
    assert code_of(tmp_path, wide, info(reference=False)) == "mismatch"


def test_more_words_and_longer_vectors_change_nothing_even_without_a_reference(tmp_path: Path) -> None:
    tensors = dict(build(ARCHITECTURE, seed=1).state_dict())
    tensors["embedding.weight"] = pad(tensors["embedding.weight"], (0, 2, 0, 30), value=1.0)
    for direction in ("l0", "l0_reverse"):
        name = f"{FIRST}.weight_ih_{direction}"
        tensors[name] = pad(tensors[name], (0, 2))
    loaded = load_backbone(saved(tmp_path, tensors), info(reference=False))
    assert torch.allclose(read(loaded), read(build(ARCHITECTURE, seed=1)), atol=1e-6)


def fewer(tensors: Tensors, name: str, axis: int = 0, *, left: int | None = None) -> Tensors:
    shape = tensors[name].shape
    return tensors | {name: tensors[name].narrow(axis, 0, shape[axis] - 1 if left is None else left)}


LIES = {
    "a bias of one entry": lambda wide: fewer(wide, f"{FIRST}.bias_ih_l0", left=1),
    "a bias that lacks an entry": lambda wide: fewer(wide, f"{SECOND}.bias_hh_l0_reverse"),
    "a gate that lacks a unit": lambda wide: fewer(wide, f"{FIRST}.weight_ih_l0"),
    "a direction that reads a number less": lambda wide: fewer(wide, f"{FIRST}.weight_ih_l0_reverse", 1),
    "a unit that its own direction does not read": lambda wide: fewer(wide, f"{FIRST}.weight_hh_l0", 1),
    "a layer that reads a unit less": lambda wide: fewer(
        fewer(wide, f"{SECOND}.weight_ih_l0", 1), f"{SECOND}.weight_ih_l0_reverse", 1
    ),
    "directions of unequal width": lambda wide: (
        wide | {name: it for name, it in build(ARCHITECTURE, seed=1).state_dict().items() if "l0_reverse" in name}
    ),
    "vectors that are shorter": lambda wide: fewer(wide, "embedding.weight", 1),
    "words that are missing": lambda wide: fewer(wide, "embedding.weight"),
    "no units": lambda wide: fewer(wide, f"{FIRST}.weight_hh_l0", 1, left=0),
    "whole numbers": lambda wide: wide | {"embedding.weight": wide["embedding.weight"].int()},
    "one tensor less": lambda wide: {name: tensor for name, tensor in wide.items() if name != f"{FIRST}.bias_hh_l0"},
}


@pytest.mark.parametrize("lie", LIES)
def test_widths_that_do_not_fit_each_other_are_refused(tmp_path: Path, wide: Tensors, lie: str) -> None:
    assert code_of(tmp_path, LIES[lie](wide), info()) == "mismatch"


def test_too_many_units_are_refused(tmp_path: Path, wide: Tensors) -> None:
    grown = wide | {f"{FIRST}.weight_ih_l0": torch.zeros(4 * (CHANNELS_MAX + 1), 6)}
    assert code_of(tmp_path, grown, info()) == "too_large"


def test_both_directions_together_may_have_no_more_units_than_can_be_aligned(tmp_path: Path, wide: Tensors) -> None:
    units = CHANNELS_MAX // 2 + 1
    shapes = {"weight_ih": (4 * units, 6), "weight_hh": (4 * units, units), "bias": (4 * units,)}
    for name in [name for name in wide if name.startswith(FIRST)]:
        part = next(part for part in shapes if name.startswith(f"{FIRST}.{part}"))
        wide[name] = torch.zeros(shapes[part])
    for direction in ("l0", "l0_reverse"):
        wide[f"{SECOND}.weight_ih_{direction}"] = torch.zeros(28, 2 * units)
    assert code_of(tmp_path, wide, info()) == "too_large"
