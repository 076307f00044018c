"""Promised: a reference is small and checked; a copy of a marked ResNet-18 is read through it, a stranger stays one."""

import copy
from dataclasses import replace

import pytest
import torch

from wm.alignment import (
    CENTRE,
    CHANNELS_MAX,
    REFERENCE_BYTES_MAX,
    RESPONSES,
    SCALE,
    Reference,
    make_reference,
    probing_for,
    reference_from_tensors,
)
from wm.architectures import Architecture, build
from wm.attacks import ATTACKS, Stolen, attacked
from wm.backbone import Tap, feature_count
from wm.branch import Branch, count_matched
from wm.errors import WatermarkError
from wm.evidence import load_evidence
from wm.info import Probing
from wm.triggers import make_triggers

pytestmark = pytest.mark.long


@pytest.mark.parametrize("channels", [(8,), (64, 128, 256), (256, 512, 1024), (CHANNELS_MAX,) * 16])
def test_a_reference_of_any_taps_stays_below_its_limit(channels: tuple[int, ...]) -> None:
    taps = [Tap(f"layer{number}", count, 8, 8) for number, count in enumerate(channels)]
    probing = probing_for(taps, pooling=4, centred=True)
    width = feature_count(taps, pooling=probing.pooling)
    assert 2 * probing.probes * width <= REFERENCE_BYTES_MAX
    assert probing == probing_for(taps, pooling=4, centred=True)
    assert 16 <= probing.probes <= 256


def test_a_tap_too_wide_to_be_aligned_has_no_reference() -> None:
    assert probing_for([Tap("layer1", CHANNELS_MAX + 1, 8, 8)], pooling=4, centred=False) is None


SMALL = Reference(torch.ones(4, 12, dtype=torch.float16), torch.ones(2), torch.ones(12))


def small(owner, **tensors: torch.Tensor | None) -> Reference | None:
    taps = (Tap("layer1", 2, 8, 8), Tap("layer2", 1, 4, 4))
    info = replace(owner.embedding.info, taps=taps, reference=Probing(probes=4, pooling=2, centred=True))
    changed = SMALL.tensors() | {name.replace("_", "."): value for name, value in tensors.items()}
    return reference_from_tensors({name: value for name, value in changed.items() if value is not None}, info)


def test_a_reference_that_fits_its_info_is_read(owner) -> None:
    assert torch.equal(small(owner).responses, SMALL.responses)


@pytest.mark.parametrize(
    ("name", "tensor", "code"),
    [
        (RESPONSES, None, "mismatch"),
        (SCALE, None, "mismatch"),
        (RESPONSES, torch.ones(4, 11, dtype=torch.float16), "mismatch"),
        (RESPONSES, torch.ones(5, 12, dtype=torch.float16), "mismatch"),
        (RESPONSES, torch.ones(4, 12), "mismatch"),
        (RESPONSES, torch.full((4, 12), torch.inf, dtype=torch.float16), "malformed"),
        (SCALE, torch.ones(3), "mismatch"),
        (SCALE, torch.tensor([1.0, 0.0]), "malformed"),
        (SCALE, torch.tensor([1.0, torch.nan]), "malformed"),
        (CENTRE, None, "mismatch"),
        (CENTRE, torch.ones(11), "mismatch"),
        (CENTRE, torch.full((12,), torch.nan), "malformed"),
        ("reference.more", torch.ones(1), "mismatch"),
    ],
)
def test_a_reference_that_does_not_is_refused(owner, name: str, tensor: torch.Tensor | None, code: str) -> None:
    with pytest.raises(WatermarkError) as caught:
        small(owner, **{name.replace(".", "_"): tensor})
    assert caught.value.code == code


def test_a_reference_that_the_info_does_not_tell_of_is_refused(owner) -> None:
    with pytest.raises(WatermarkError) as caught:
        reference_from_tensors(SMALL.tensors(), replace(owner.embedding.info, reference=None))
    assert caught.value.code == "mismatch"
    assert reference_from_tensors({}, replace(owner.embedding.info, reference=None)) is None


def test_a_model_that_answers_probes_with_infinity_has_no_reference(owner) -> None:
    evidence, model = load_evidence(owner.evidence_path), build(owner.architecture, seed=1)
    torch.nn.init.constant_(model.conv1.weight, 3e38)
    with pytest.raises(ValueError, match="finite"):
        make_reference(model, evidence.info)


def test_a_permuted_and_scaled_copy_is_read_as_the_original_and_a_stranger_is_not(owner, few_digits) -> None:
    evidence = load_evidence(owner.evidence_path)
    stolen = Stolen(model=owner.embedding.model, architecture=owner.architecture, data=few_digits)
    moved = attacked(ATTACKS["permutation"], stolen, strength=1.0, seed=1)
    hidden = attacked(ATTACKS["scaling"], replace(stolen, model=moved), strength=10.0, seed=1)
    stranger = build(Architecture("resnet18", {"num_classes": 10}), seed=99)

    def matched(model: torch.nn.Module, key: bytes, *, aligned: bool) -> int:
        reference = evidence.reference if aligned else None
        return count_matched(model, evidence.head, evidence.info, key, reference=reference)

    assert matched(hidden, owner.key, aligned=False) <= 75
    assert matched(hidden, owner.key, aligned=True) >= 95
    assert matched(hidden, owner.other_key, aligned=True) <= 75
    assert matched(stranger, owner.key, aligned=True) <= 75


@torch.no_grad()
def test_a_copy_whose_answers_have_all_moved_is_read_as_the_original_and_only_if_centred(owner) -> None:
    evidence, moved = load_evidence(owner.evidence_path), copy.deepcopy(owner.embedding.model)
    for stage in (moved.layer1, moved.layer2, moved.layer3):  # as tuning does it, only more: as much for every trigger
        stage[-1].bn2.bias += 3 * torch.rand(len(stage[-1].bn2.bias), generator=torch.Generator().manual_seed(1))

    def matched(reference: Reference | None, key: bytes = owner.key) -> int:
        return count_matched(moved, evidence.head, evidence.info, key, reference=reference)

    assert evidence.info.reference.centred
    assert matched(evidence.reference) >= 90
    assert matched(evidence.reference, owner.other_key) <= 75
    assert matched(replace(evidence.reference, centre=None)) <= 75
    assert matched(None) <= 75


def test_the_original_is_read_as_it_is(owner) -> None:
    evidence = load_evidence(owner.evidence_path)
    triggers = make_triggers(owner.key, evidence.info.input, count=evidence.info.triggers)
    plain = Branch(evidence.head, evidence.info, triggers)
    read, aligned = (
        plain.read(owner.embedding.model),
        replace(plain, reference=evidence.reference).read(owner.embedding.model),
    )
    assert torch.allclose(read, aligned, rtol=1e-3, atol=1e-3)  # the reference is in half precision
