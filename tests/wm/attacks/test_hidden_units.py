"""Promised: a Bi-LSTM's hidden units, renumbered, turned over or among dummies, hide a mark until they are aligned.

The mark is a head that was fitted to a frozen network: what is read matters here, not how it came about.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from wm.architectures import Architecture, build, default_taps, skeleton
from wm.attacks import ATTACKS, Stolen, attacked
from wm.attacks.forgeries.forgery import fit_head
from wm.attacks.permutation import reorder
from wm.backbone import features_in_evaluation
from wm.branch import Branch, count_matched
from wm.data import Dataset, Examples
from wm.errors import WatermarkError
from wm.evidence import EvidenceFile, with_reference
from wm.head import initial_head
from wm.info import Info
from wm.progress import silent
from wm.symmetries.channels import free_streams
from wm.symmetries.streams import multiply
from wm.tap_shapes import taps_of
from wm.triggers import TextSpec, make_triggers

ARCHITECTURE = Architecture("bilstm", {"vocabulary": 100, "dimension": 6, "hidden": 12, "num_classes": 3})
SPEC = TextSpec(20, 100, "0" * 64)
KEY, OTHER_KEY = bytes(range(32)), bytes(32)
TRIGGERS, MOST, LEAST = 100, 75, 95  # what chance hardly ever reaches, and a mark does
DISGUISES = {"permutation": 1.0, "sign_flip": 0.5, "dummy_neurons": 0.5}


@pytest.fixture(scope="module")
def texts() -> Tensor:
    drawn = torch.randint(2, 100, (30, 20), generator=torch.Generator().manual_seed(1))
    drawn[:10, 15:] = 0
    return drawn


@pytest.fixture(scope="module")
def stolen(texts: Tensor) -> Stolen:
    model = build(ARCHITECTURE, seed=1).eval()
    with torch.no_grad():  # a fresh LSTM answers in whispers: nearly linear, where a wrong gate would hardly show
        for layer in model.layers:
            for weight in layer.lstm.parameters():
                weight.mul_(3)
    examples = Examples(texts, torch.arange(len(texts)) % 3)
    data = Dataset("texts", 3, SPEC, examples, examples, examples)
    taps = taps_of(skeleton(ARCHITECTURE), default_taps(ARCHITECTURE), SPEC)
    info = Info(
        scheme="mtlsign",
        architecture=ARCHITECTURE,
        taps=tuple(taps),
        pooling=4,
        hidden=32,
        triggers=TRIGGERS,
        gamma="0.7",
        input=SPEC,
    )
    triggers = make_triggers(KEY, SPEC, count=TRIGGERS)
    read = features_in_evaluation(model, info.modules, triggers.images, pooling=info.pooling)
    head = initial_head(read, info.taps, pooling=info.pooling, hidden=info.hidden, seed=1)
    fit_head(head, read, triggers.labels, steps=100, progress=silent)
    evidence = with_reference(EvidenceFile(head, info, bytes(32)), model)
    return Stolen(
        model=model,
        architecture=ARCHITECTURE,
        data=data,
        revealed=Branch(head, evidence.info, triggers, evidence.reference),
    )


@torch.no_grad()
def answers(model: nn.Module, texts: Tensor) -> Tensor:
    logits: Tensor = model.eval()(texts)
    return logits


def matched(model: nn.Module, stolen: Stolen, *, aligned: bool, key: bytes = KEY) -> int:
    branch = stolen.revealed
    assert branch is not None
    return count_matched(model, branch.head, branch.info, key, reference=branch.reference if aligned else None)


def disguised(stolen: Stolen, *names: str) -> nn.Module:
    for name in names:
        model = attacked(ATTACKS[name], stolen, strength=DISGUISES[name], seed=1)
        stolen = replace(stolen, model=model)
    return stolen.model


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("name", DISGUISES)
def test_a_disguise_changes_all_gates_and_no_answer(stolen: Stolen, texts: Tensor, name: str, layers: int) -> None:
    of = Architecture("bilstm", dict(ARCHITECTURE.arguments) | {"layers": layers})
    model = build(of, seed=2).eval()
    other = disguised(replace(stolen, model=model, architecture=of), name)
    assert torch.allclose(answers(model, texts), answers(other, texts), atol=1e-6)
    for path, weight in model.named_parameters():
        changed = other.get_parameter(path)
        is_moved = changed.shape != weight.shape or not torch.equal(changed, weight)
        assert is_moved == (path not in {"embedding.weight", "classifier.bias"})


def test_a_sign_is_turned_over_to_the_last_bit(stolen: Stolen, texts: Tensor) -> None:
    assert torch.equal(answers(stolen.model, texts), answers(disguised(stolen, "sign_flip"), texts))


@pytest.mark.parametrize("reader", [0, 1, 2])
@pytest.mark.parametrize("direction", [0, 1])
def test_a_disguise_that_forgets_one_reader_is_seen(stolen: Stolen, texts: Tensor, direction: int, reader: int) -> None:
    for change in ("order", "sign"):
        model = build(ARCHITECTURE, seed=2).eval()
        model.load_state_dict(stolen.model.state_dict())
        units = free_streams(model)[direction]
        units.readers.pop(reader)
        if change == "order":
            reorder(model, units, torch.arange(units.channels).flip(0))
        else:
            multiply(model, units, -torch.ones(units.channels, dtype=torch.float64))
        assert not torch.allclose(answers(stolen.model, texts), answers(model, texts), atol=1e-4)


def test_gates_let_no_factor_through(stolen: Stolen, texts: Tensor) -> None:
    with pytest.raises(WatermarkError) as caught:
        attacked(ATTACKS["scaling"], stolen, strength=2, seed=1)
    assert caught.value.code == "unknown_architecture"
    model = build(ARCHITECTURE, seed=2).eval()
    model.load_state_dict(stolen.model.state_dict())
    units = free_streams(model)[0]
    multiply(model, units, torch.full((units.channels,), 2.0, dtype=torch.float64))
    assert not torch.allclose(answers(stolen.model, texts), answers(model, texts), atol=1e-4)


@pytest.mark.parametrize("names", [("permutation",), ("sign_flip",), ("permutation", "sign_flip")])
def test_what_moves_units_hides_the_mark_until_they_are_aligned(stolen: Stolen, names: tuple[str, ...]) -> None:
    model = disguised(stolen, *names)
    assert matched(stolen.model, stolen, aligned=False) >= LEAST
    assert matched(model, stolen, aligned=False) <= MOST
    assert matched(model, stolen, aligned=True) == matched(stolen.model, stolen, aligned=True) >= LEAST


def test_all_disguises_at_once_are_seen_through(stolen: Stolen) -> None:
    model = disguised(stolen, *DISGUISES)
    with pytest.raises(WatermarkError):
        matched(model, stolen, aligned=False)
    assert matched(model, stolen, aligned=True) >= LEAST


def test_alignment_brings_no_stranger_and_no_other_key_to_the_mark(stolen: Stolen) -> None:
    for seed in range(2, 6):
        assert matched(build(ARCHITECTURE, seed=seed), stolen, aligned=True) <= MOST
    assert matched(disguised(stolen, *DISGUISES), stolen, aligned=True, key=OTHER_KEY) <= MOST
