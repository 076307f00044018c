"""Promised: a payload survives its file, a hostile one is refused by name, and a suspect of another shape as well."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from locked import KEY, OTHER_KEY, fresh_network
from torch import Tensor, nn

from wm import tensorfile
from wm.errors import WatermarkError
from wm.schemes.locked_parameters import LockedPayload, agreements, correlation, lockable, payload_from
from wm.schemes.locked_parameters.places import signs
from wm.schemes.scheme import Marked

SHAPES = lockable(fresh_network())
GOOD = LockedPayload(torch.linspace(-0.3, 0.4, 120), SHAPES)
WITH_REFERENCE = replace(GOOD, reference=torch.ones(32, 80, dtype=torch.float16))


@pytest.mark.parametrize("payload", [GOOD, WITH_REFERENCE])
def test_a_payload_survives_its_file(payload: LockedPayload, tmp_path: Path) -> None:
    tensorfile.write(tmp_path / "payload.safetensors", payload.tensors())
    with tensorfile.opened(tmp_path / "payload.safetensors", file_bytes_max=1 << 20) as handle:
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    again = payload_from(payload.fields(), tensors, shapes=SHAPES)
    assert torch.equal(again.values, payload.values)
    assert (again.reference is None) == (payload.reference is None)
    assert (again.total, again.chance * 2, again.shapes) == (120, 1, SHAPES)


@pytest.mark.parametrize(
    ("fields", "tensors", "code", "complaint"),
    [
        ({}, {}, "malformed", "exactly the keys"),
        ({"count": 120, "sparsity": 1}, {}, "malformed", "exactly the keys"),
        ({"count": "120", "probes": 0}, {}, "malformed", r"payload\.count"),
        ({"count": True, "probes": 0}, {}, "malformed", r"payload\.count"),
        ({"count": 99, "probes": 0}, {}, "malformed", r"payload\.count"),
        ({"count": 4097, "probes": 0}, {}, "malformed", r"payload\.count"),
        ({"count": 121, "probes": 0}, {}, "malformed", r"locked\.values"),
        ({"count": 120, "probes": 31}, {}, "malformed", r"payload\.probes"),
        ({"count": 120, "probes": 257}, {}, "malformed", r"payload\.probes"),
        ({"count": 120, "probes": 40}, {}, "malformed", "exactly the tensors"),
        ({"count": 120, "probes": 40}, {"locked.reference": torch.zeros(40, 80)}, "malformed", "float16"),
        ({"count": 120, "probes": 0}, {"more": torch.zeros(1)}, "malformed", "exactly the tensors"),
        ({"count": 120, "probes": 0}, {"locked.values": torch.ones(120, dtype=torch.float64)}, "malformed", "float32"),
        ({"count": 120, "probes": 0}, {"locked.values": torch.full((120,), torch.nan)}, "malformed", "not finite"),
        ({"count": 120, "probes": 0}, {"locked.values": torch.zeros(120)}, "malformed", "no sign"),
        ({"count": 2500, "probes": 0}, {"locked.values": torch.ones(2500)}, "mismatch", "too few for 2500"),
    ],
)
def test_a_hostile_payload_is_refused_by_name(
    fields: dict[str, Any], tensors: dict[str, Tensor], code: str, complaint: str
) -> None:
    with pytest.raises(WatermarkError, match=complaint) as refused:
        payload_from(fields, GOOD.tensors() | tensors, shapes=SHAPES)
    assert refused.value.code == code


def test_a_replaced_classifier_changes_nothing(marked: Marked) -> None:
    reused = copy.deepcopy(marked.model)
    reused[9] = nn.Linear(32, 7)
    assert int(agreements(reused, marked.payload, KEY).sum()) == 200


def test_a_suspect_of_another_shape_is_refused_by_the_tensors_name(marked: Marked) -> None:
    narrower, shorter = copy.deepcopy(marked.model), copy.deepcopy(marked.model)
    narrower[3] = nn.Conv2d(16, 31, 3)
    shorter[3] = nn.Identity()
    for suspect, complaint in ((narrower, r"'3\.weight' has shape \(31"), (shorter, r"'3\.weight' is missing")):
        with pytest.raises(WatermarkError, match=complaint) as refused:
            agreements(suspect, marked.payload, KEY)
        assert refused.value.code == "mismatch"


def test_a_suspect_that_is_not_finite_is_refused(marked: Marked) -> None:
    broken = copy.deepcopy(marked.model)
    nn.init.constant_(broken[3].weight, torch.nan)
    with pytest.raises(WatermarkError, match="not finite"):
        agreements(broken, marked.payload, KEY)


def test_pruned_weights_are_coin_flips_and_no_certain_agreement(marked: Marked) -> None:
    pruned = copy.deepcopy(marked.model)
    for value in pruned.parameters():
        nn.init.zeros_(value)
    assert torch.equal(agreements(pruned, marked.payload, KEY), ~signs(KEY, 200))
    assert correlation(pruned, marked.payload, KEY) == 0


def test_an_owner_cannot_buy_agreement_with_the_values_that_he_publishes(marked: Marked, clean: nn.Module) -> None:
    fitted = replace(marked.payload, values=clean.state_dict()["3.weight"].flatten()[:200].contiguous())
    assert torch.equal(agreements(clean, fitted, KEY), agreements(clean, marked.payload, KEY))
    assert not torch.equal(agreements(clean, fitted, OTHER_KEY), agreements(clean, fitted, KEY))
