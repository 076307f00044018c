"""Promised: whatever the catalogue holds can carry a mark and be verified, through its tapped stages alone.

The marks are heads fitted to frozen fresh networks: enough to tell the right model from another (see tests/marked.py).
"""

import secrets
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

import wm
from wm.architectures import Architecture, build, names, skeleton, text_classifiers
from wm.backbone import features_in_evaluation
from wm.errors import WatermarkError
from wm.evidence import EvidenceFile, save_evidence
from wm.head import initial_head
from wm.info import Info
from wm.tap_shapes import describe_taps, possible_taps
from wm.taps import taps_for
from wm.triggers import InputSpec, Normalisation, make_triggers
from wm.weights import save_weights

pytestmark = pytest.mark.long

KEY, SEED = bytes(range(32)), bytes(32)
TRIGGERS, STEPS, POOLING = 100, 150, 2
TOO_LARGE = {"regnet_y_128gf", "vit_h_14", "vit_l_16", "vit_l_32"}
FAST = ("regnet_y_400mf", "squeezenet1_1", "ssdlite320_mobilenet_v3_large")


def architecture_of(name: str) -> tuple[Architecture, int]:
    """A small one of its kind, and the side of its pictures."""
    if name.startswith("vit"):
        return Architecture(name, {"num_classes": 3, "image_size": 64}), 64
    return Architecture(name, {"num_classes": 3}), 75 if name == "inception_v3" else 64


def taps_of(architecture: Architecture, side: int) -> tuple[str, ...]:
    """The usual ones, or the first module of the network that answers at each of the first sizes."""
    try:
        return taps_for(architecture, input_of(side))
    except WatermarkError:
        found = possible_taps(skeleton(architecture), channels=3, height=side, width=side)
        first_of_its_size = {tap.height: tap.module for tap in reversed(found) if tap.height > 1}
        return tuple(list(first_of_its_size.values())[-2:])


def input_of(side: int) -> InputSpec:
    return InputSpec(3, side, side, Normalisation(("0.5",) * 3, ("0.5",) * 3))


def mark(name: str, directory: Path) -> None:
    """Write a marked model, its evidence and another model of the architecture."""
    architecture, side = architecture_of(name)
    spec = input_of(side)
    modules = taps_of(architecture, side)
    taps = tuple(describe_taps(skeleton(architecture), modules, channels=3, height=side, width=side))
    model = build(architecture, seed=1)
    info = Info(
        scheme="mtlsign", architecture=architecture, taps=taps, pooling=POOLING, hidden=32, triggers=TRIGGERS,
        gamma="0.7", input=spec,
    ).with_files(model_sha256=save_weights(model, directory / "model"), base_sha256=None)  # fmt: skip
    triggers = make_triggers(KEY, spec, count=TRIGGERS)
    read = features_in_evaluation(model, modules, triggers.images, pooling=POOLING)
    head = initial_head(read, taps, pooling=POOLING, hidden=32, seed=1)
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        functional.cross_entropy(head(read), triggers.labels.long()).backward()
        optimizer.step()
    save_evidence(directory / "evidence", EvidenceFile(head.eval(), info, secrets.token_bytes(32)))
    save_weights(build(architecture, seed=2), directory / "other")


def assert_told_apart(name: str, directory: Path) -> None:
    mark(name, directory)
    found = wm.verify(directory / "model", directory / "evidence", KEY, control_seed=SEED, permutations=19, controls=1)
    assert found.matched >= 95
    assert found.controls[0].matched <= 75
    other = wm.verify(directory / "other", directory / "evidence", KEY, control_seed=SEED, permutations=0, controls=0)
    assert other.matched <= 75


@pytest.mark.parametrize("name", FAST)
def test_a_marked_network_is_told_from_another(name: str, tmp_path: Path) -> None:
    assert_told_apart(name, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", sorted(set(names()) - TOO_LARGE - set(FAST) - set(text_classifiers())))
def test_any_marked_network_is_told_from_another(name: str, tmp_path: Path) -> None:
    assert_told_apart(name, tmp_path)


def test_a_detector_with_frozen_batch_normalisation_lacks_counts_and_is_the_same_detector(tmp_path: Path) -> None:
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    mark(name, tmp_path)
    tensors = load_file(tmp_path / "model")
    kept = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / "frozen")
    for file in ("model", "frozen"):
        found = wm.verify(tmp_path / file, tmp_path / "evidence", KEY, control_seed=SEED, permutations=0, controls=0)
        assert found.matched >= 95
