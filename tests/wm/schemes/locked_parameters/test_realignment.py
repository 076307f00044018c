"""Promised: realignment finds locked weights that were moved about for nothing, and finds none in strangers.

And what it cannot promise: a reference that its maker crafted convicts whom he likes.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from locked import KEY, fresh_network, same
from scipy.optimize import linear_sum_assignment
from torch import nn

from wm.architectures import Architecture
from wm.attacks import ATTACKS, attacked
from wm.attacks.attack import Stolen
from wm.attacks.permutation import reorder
from wm.data import Dataset, fraction_of
from wm.errors import WatermarkError
from wm.schemes.locked_parameters import (
    LockedPayload,
    agreements,
    aligned_agreements,
    lockable,
    realigned,
)
from wm.schemes.locked_parameters.places import Shapes, positions, signs
from wm.schemes.locked_parameters.realignment import make_reference
from wm.schemes.scheme import Marked
from wm.statistics import tail
from wm.symmetries.channels import free_streams
from wm.symmetries.streams import Stream
from wm.training import fit

ANY = Architecture("resnet18", {"num_classes": 10})  # an attack on a network of one's own does not look at it


def stolen(marked: Marked, data: Dataset) -> Stolen:
    return Stolen(model=marked.model, architecture=ANY, data=replace(data, train=fraction_of(data.train, 0.25, seed=7)))


def counts(suspect: nn.Module, payload: LockedPayload, data: Dataset) -> tuple[int, int]:
    return int(agreements(suspect, payload, KEY).sum()), int(
        aligned_agreements(suspect, payload, KEY, data.input).sum()
    )


def best_order(model: nn.Module, stream: Stream, shapes: Shapes) -> torch.Tensor:
    """Choose the order of a stream's channels in which most weights have the key's signs."""
    places, wanted = positions(KEY, shapes, 200), signs(KEY, 200)
    gained = torch.zeros(stream.channels, stream.channels)  # wanted channel, channel that is put there
    held = model.state_dict()
    for part in (*stream.rows, *stream.readers):
        if part.name not in places.names:
            continue
        number = places.names.index(part.name)
        chosen, where = places.of(number)
        for sign, *entry in zip(wanted[chosen].tolist(), *(it.tolist() for it in where), strict=True):
            channel, cell = divmod(entry[part.axis], part.cells)
            line = held[part.name].movedim(part.axis, 0).flatten(1)
            rest = [it for axis, it in enumerate(entry) if axis != part.axis]
            others = [size for axis, size in enumerate(held[part.name].shape) if axis != part.axis]
            at = int(np.ravel_multi_index(rest, others))
            gained[channel] += ((line[cell :: part.cells, at] > 0) == sign).float()
    return torch.from_numpy(linear_sum_assignment(gained.numpy(), maximize=True)[1])


def test_a_model_is_aligned_to_itself_by_leaving_it_as_it_is(marked: Marked, digits_data: Dataset) -> None:
    aligned = copy.deepcopy(marked.model)
    aligned.load_state_dict(realigned(marked.model, marked.payload, digits_data.input))
    assert same(aligned, marked.model)


@pytest.mark.parametrize(("attack", "strength"), [("permutation", 1.0), ("sign_flip", 1.0)])
def test_channels_that_were_moved_about_are_found(
    attack: str, strength: float, marked: Marked, digits_data: Dataset
) -> None:
    suspect = attacked(ATTACKS[attack], stolen(marked, digits_data), strength=strength, seed=1)
    plain, aligned = counts(suspect, marked.payload, digits_data)
    assert plain < 180
    assert aligned == 200


def test_so_they_are_beside_dummies_after_scaling_and_after_fine_tuning(marked: Marked, digits_data: Dataset) -> None:
    suspect, thief = marked.model, stolen(marked, digits_data)
    for attack, strength in (("ftal", 1e-3), ("scaling", 10), ("permutation", 1.0), ("dummy_neurons", 0.5)):
        suspect = attacked(ATTACKS[attack], replace(thief, model=suspect), strength=strength, seed=1)
    with pytest.raises(WatermarkError, match="another architecture"):
        agreements(suspect, marked.payload, KEY)
    assert int(aligned_agreements(suspect, marked.payload, KEY, digits_data.input).sum()) > 190


def test_strangers_agree_by_chance_aligned_as_well(marked: Marked, clean: nn.Module, digits_data: Dataset) -> None:
    independent = fresh_network(seed=2)
    fit(independent, digits_data, epochs=1, lr=3e-3, seed=2)
    for suspect in (clean, independent):
        assert tail(counts(suspect, marked.payload, digits_data)[1], 200) > 1e-4


def test_a_crafted_reference_convicts_a_network_that_was_never_marked(clean: nn.Module, digits_data: Dataset) -> None:
    shapes, crafted = lockable(clean), copy.deepcopy(clean)
    for _ in range(3):  # each time, every stream gets the order that agrees best with the key as the others are
        for stream in free_streams(crafted):
            reorder(crafted, stream, best_order(crafted, stream, shapes))
    payload = LockedPayload(torch.ones(200), shapes, make_reference(crafted, shapes, digits_data.input))
    plain, aligned = counts(clean, payload, digits_data)
    assert tail(plain, 200) > 1e-4
    assert tail(aligned, 200) < 1e-9


def test_a_suspect_with_fewer_channels_is_refused(marked: Marked, digits_data: Dataset) -> None:
    narrower = nn.Sequential(*copy.deepcopy(marked.model))
    narrower[7], narrower[9] = nn.Linear(512, 31), nn.Linear(31, 10)
    with pytest.raises(WatermarkError, match="31 channels, the marked model has 32") as refused:
        aligned_agreements(narrower, marked.payload, KEY, digits_data.input)
    assert refused.value.code == "mismatch"


def test_without_a_reference_nothing_is_aligned(marked: Marked, digits_data: Dataset) -> None:
    with pytest.raises(ValueError, match="no reference"):
        realigned(marked.model, replace(marked.payload, reference=None), digits_data.input)
