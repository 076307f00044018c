"""Promised: a network of other numbers of channels is rebuilt if they fit each other, and refused if anything lies."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from wm import tensorfile
from wm.architectures import Architecture, build
from wm.attacks import ATTACKS, Stolen, attacked
from wm.backbone import Tap, features_in_evaluation
from wm.errors import WatermarkError
from wm.evidence import load_evidence
from wm.info import Info
from wm.triggers import InputSpec, Normalisation, make_probes
from wm.weights import check_backbone, load_backbone, save_weights
from wm.widths import CHANNELS_MAX

pytestmark = pytest.mark.long

ARCHITECTURE = Architecture("resnet18", {"num_classes": 10})
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def info(owner) -> Info:
    """Of a mark that is read behind the first stage, so that little has to be loaded."""
    whole = load_evidence(owner.evidence_path).info
    return replace(whole, taps=whole.taps[:1])


@pytest.fixture(scope="module")
def wide(few_digits) -> Tensors:
    stolen = Stolen(model=build(ARCHITECTURE, seed=1).eval(), architecture=ARCHITECTURE, data=few_digits)
    return dict(attacked(ATTACKS["dummy_neurons"], stolen, strength=0.1, seed=1).state_dict())


def saved(tmp_path: Path, tensors: Tensors) -> Path:
    path = tmp_path / "suspect.safetensors"
    tensorfile.write(path, {name: tensor.contiguous() for name, tensor in tensors.items()})
    return path


def code_of(tmp_path: Path, tensors: Tensors, info: Info) -> str:
    path, codes = saved(tmp_path, tensors), set()
    for load in (load_backbone, check_backbone):
        with pytest.raises(WatermarkError) as caught:
            load(path, info)
        codes.add(caught.value.code)
    (code,) = codes
    return code


def test_a_widened_network_computes_what_it_did(tmp_path: Path, info: Info, wide: Tensors) -> None:
    loaded = load_backbone(saved(tmp_path, wide), info)
    probes = make_probes(info.input, count=3)
    read, plain = (
        features_in_evaluation(it, ["layer1"], probes, pooling=1) for it in (loaded, build(ARCHITECTURE, seed=1))
    )
    assert read.shape == (3, 70)
    found = (read[:, None, :] - plain[:, :, None]).abs().amin(2)  # each channel of the plain one is somewhere in it
    assert found.max() < 1e-4


def test_without_a_reference_a_tap_of_other_channels_is_refused(tmp_path: Path, info: Info, wide: Tensors) -> None:
    assert code_of(tmp_path, wide, replace(info, reference=None)) == "mismatch"


def test_channels_between_the_taps_may_differ_even_without_a_reference(tmp_path: Path, info: Info) -> None:
    tensors = dict(build(ARCHITECTURE, seed=1).state_dict())
    inner = "layer1.0"  # one more channel between its convolutions, which nothing reads
    tensors[f"{inner}.conv1.weight"] = torch.cat([tensors[f"{inner}.conv1.weight"], torch.ones(1, 64, 3, 3)])
    tensors[f"{inner}.conv2.weight"] = torch.cat([tensors[f"{inner}.conv2.weight"], torch.zeros(64, 1, 3, 3)], dim=1)
    for part in ("weight", "bias", "running_mean", "running_var"):
        tensors[f"{inner}.bn1.{part}"] = torch.cat([tensors[f"{inner}.bn1.{part}"], torch.ones(1)])
    loaded = load_backbone(saved(tmp_path, tensors), replace(info, reference=None))
    probes, plain = make_probes(info.input, count=3), build(ARCHITECTURE, seed=1)
    assert torch.allclose(*(features_in_evaluation(it, ["layer1"], probes, pooling=2) for it in (loaded, plain)))


def fewer(tensors: Tensors, name: str, axis: int = 0, *, left: int | None = None) -> Tensors:
    shape = tensors[name].shape
    return tensors | {name: tensors[name].narrow(axis, 0, shape[axis] - 1 if left is None else left)}


LIES = {
    "a normalisation with an entry less": lambda wide: fewer(wide, "bn1.bias"),
    "a normalisation whose mean is one number": lambda wide: fewer(wide, "bn1.running_mean", left=1),
    "a convolution that reads a channel less": lambda wide: fewer(wide, "layer1.0.conv1.weight", 1),
    "a convolution that makes a channel less": lambda wide: fewer(wide, "layer1.0.conv1.weight", 0),
    "a first layer of another picture": lambda wide: fewer(wide, "conv1.weight", 1),
    "another kernel": lambda wide: fewer(wide, "layer1.0.conv1.weight", 2),
    "no channels": lambda wide: fewer(wide, "conv1.weight", left=0),
    "whole numbers": lambda wide: wide | {"conv1.weight": wide["conv1.weight"].int()},
    "one tensor less": lambda wide: {name: tensor for name, tensor in wide.items() if name != "bn1.bias"},
}


@pytest.mark.parametrize("lie", LIES)
def test_channels_that_do_not_fit_each_other_are_refused(tmp_path: Path, info: Info, wide: Tensors, lie: str) -> None:
    assert code_of(tmp_path, LIES[lie](wide), info) == "mismatch"


def test_a_branch_of_one_channel_is_not_repeated_for_all(tmp_path: Path, info: Info, wide: Tensors) -> None:
    changed = fewer(wide, "layer1.0.conv2.weight", left=1)
    for part in ("weight", "bias", "running_mean", "running_var"):
        changed = fewer(changed, f"layer1.0.bn2.{part}", left=1)
    assert code_of(tmp_path, changed, info) == "mismatch"


def test_too_many_channels_are_refused(tmp_path: Path, info: Info, wide: Tensors) -> None:
    grown = wide | {"layer1.0.conv1.weight": torch.zeros(CHANNELS_MAX + 1, 70, 3, 3)}
    assert code_of(tmp_path, grown, info) == "too_large"


def test_a_weight_that_is_not_finite_is_refused(tmp_path: Path, info: Info, wide: Tensors) -> None:
    bad = wide["conv1.weight"].clone()
    bad[0, 0, 0, 0] = torch.nan
    assert code_of(tmp_path, wide | {"conv1.weight": bad}, info) == "malformed"


def test_channels_of_a_depthwise_convolution_must_be_the_architectures(tmp_path: Path) -> None:
    of = Architecture("mobilenet_v2", {"num_classes": 2})
    spec = InputSpec(3, 32, 32, Normalisation(("0.5",) * 3, ("0.5",) * 3))
    info = Info(
        scheme="mtlsign",
        architecture=of,
        taps=(Tap("features.1", 16, 16, 16),),
        pooling=2,
        hidden=8,
        triggers=100,
        gamma="0.7",
        input=spec,
    )
    save_weights(build(of, seed=1), tmp_path / "whole")
    assert load_backbone(tmp_path / "whole", info) is not None
    tensors = dict(build(of, seed=1).state_dict())
    depthwise = "features.1.conv.0.0.weight"
    changed = tensors | {depthwise: torch.cat([tensors[depthwise], tensors[depthwise][:1]])}
    assert code_of(tmp_path, changed, info) == "mismatch"
