"""Promised: what is written is read; what no honest owner writes is refused by name; triggers are ε from originals."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wm.errors import WatermarkError
from wm.schemes.frontier_stitching import KeySet, class_triggers, clean_triggers, payload_from
from wm.schemes.frontier_stitching.key_set import check_size, moved, packed, unpacked
from wm.schemes.frontier_stitching.keyed import candidate_order, hidden, revealed
from wm.triggers import InputSpec, Normalisation

KEY, OTHER_KEY = bytes(range(32)), bytes(reversed(range(32)))
CLASSES, COUNT, EPSILON = 10, 20, 9
SPEC = InputSpec(3, 21, 21, Normalisation(("0.5",) * 3, ("0.25",) * 3))  # 1,323 pixels: five bits are left over


def key_set(*, seed: int = 1) -> KeySet:
    source = torch.Generator().manual_seed(seed)
    originals = torch.randint(256, (COUNT, 3, 21, 21), generator=source).to(torch.uint8)
    up = torch.randint(2, originals.shape, generator=source).bool()
    labels = torch.randint(CLASSES, (COUNT,), generator=source)
    return KeySet(originals, packed(up), hidden(labels, KEY, classes=CLASSES), EPSILON, CLASSES)


@dataclass
class File:
    """What a stranger sends, to be spoilt."""

    fields: dict = field(default_factory=lambda: dict(key_set().fields()))
    tensors: dict = field(default_factory=lambda: {name: it.clone() for name, it in key_set().tensors().items()})

    def read(self) -> KeySet:
        return payload_from(self.fields, self.tensors, spec=SPEC, classes=CLASSES)


def test_what_is_written_is_read() -> None:
    written, read = key_set(), File().read()
    assert (read.total, read.chance, read.fields()) == (COUNT, None, written.fields())
    assert all(torch.equal(value, read.tensors()[name]) for name, value in written.tensors().items())
    assert all(value.is_contiguous() for value in written.tensors().values())
    first, again = class_triggers(written, KEY), class_triggers(read, KEY)
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.labels, again.labels)


def put(name: str, value: object) -> Callable[[File], None]:
    return lambda file: file.tensors.update({name: value})


def change(name: str, apply: Callable[[Tensor], object]) -> Callable[[File], None]:
    return lambda file: file.tensors.update({name: apply(file.tensors[name])})


def _repeated(originals: Tensor) -> Tensor:
    return originals.index_copy(0, torch.tensor([7]), originals[3:4])


def _repeated_with_noise(originals: Tensor) -> Tensor:
    noise = torch.randint(-3, 4, originals[3:4].shape, generator=torch.Generator().manual_seed(1))
    return originals.index_copy(0, torch.tensor([7]), (originals[3:4].int() + noise).clamp(0, 255).to(torch.uint8))


def _repeated_but_for_a_pixel(originals: Tensor) -> Tensor:
    spoilt = _repeated(originals)
    spoilt[7, :, 0, 0] = 255 - spoilt[7, :, 0, 0]
    return spoilt


HOSTILE: dict[str, tuple[Callable[[File], object], str]] = {
    "no field": (lambda file: file.fields.pop("epsilon_levels"), "'payload'"),
    "one field more": (lambda file: file.fields.update(x=1), "'payload'"),
    "too few triggers": (lambda file: file.fields.update(triggers=19), "payload.triggers"),
    "too many triggers": (lambda file: file.fields.update(triggers=1025), "payload.triggers"),
    "a truth for a number": (lambda file: file.fields.update(epsilon_levels=True), "payload.epsilon_levels"),
    "a text for a number": (lambda file: file.fields.update(epsilon_levels="9"), "payload.epsilon_levels"),
    "pictures that are not moved": (lambda file: file.fields.update(epsilon_levels=0), "payload.epsilon_levels"),
    "pictures that are turned over": (lambda file: file.fields.update(epsilon_levels=128), "payload.epsilon_levels"),
    "more triggers than pictures": (lambda file: file.fields.update(triggers=21), "'originals'"),
    "no tensor": (lambda file: file.tensors.pop("labels"), "exactly the tensors"),
    "one tensor more": (put("x", torch.zeros(1)), "exactly the tensors"),
    "pictures as floats": (change("originals", Tensor.float), "'originals'"),
    "pictures of another size": (change("originals", lambda it: it[:, :, :20]), "'originals'"),
    "too few bits": (change("directions", lambda it: it[:, :-1]), "'directions'"),
    "a bit behind the last": (change("directions", lambda it: it | 1), "'directions'"),
    "labels as bytes": (change("labels", lambda it: it.to(torch.uint8)), "'labels'"),
    "a class that is none": (change("labels", lambda it: it.index_fill(0, torch.tensor([3]), 10)), "'labels'"),
    "a negative class": (change("labels", lambda it: it.index_fill(0, torch.tensor([3]), -1)), "'labels'"),
    "one picture twice": (change("originals", _repeated), "one picture twice"),
    "one picture twice, with noise": (change("originals", _repeated_with_noise), "one picture twice"),
    "one picture twice, but for a pixel": (change("originals", _repeated_but_for_a_pixel), "one picture twice"),
}


@pytest.mark.parametrize("lie", HOSTILE)
def test_what_no_honest_owner_writes_is_refused_by_name(lie: str) -> None:
    spoil, message = HOSTILE[lie]
    file = File()
    file.read()
    spoil(file)
    with pytest.raises(WatermarkError, match=message) as caught:
        file.read()
    assert caught.value.code == "malformed"


def test_more_pictures_than_an_evidence_file_holds_are_refused() -> None:
    large = replace(SPEC, height=224, width=224)
    check_size(111, large)
    with pytest.raises(WatermarkError, match="take fewer") as caught:
        check_size(112, large)
    assert caught.value.code == "too_large"


@given(st.integers(0, 2**32), st.integers(1, 127))
def test_no_pixel_of_a_trigger_is_further_than_epsilon_from_its_original(seed: int, epsilon: int) -> None:
    source = torch.Generator().manual_seed(seed)
    originals = torch.randint(256, (2, 3, 4, 5), generator=source).to(torch.uint8)
    up = torch.randint(2, originals.shape, generator=source).bool()
    steps = moved(originals, up, epsilon).int() - originals.int()
    inside = (originals >= epsilon) & (originals <= 255 - epsilon)
    assert int(steps.abs().max()) <= epsilon
    assert bool((steps[inside] == torch.where(up, epsilon, -epsilon)[inside]).all())
    assert torch.equal(unpacked(packed(up), up.shape), up)


@given(st.binary(min_size=32, max_size=32), st.integers(2, 1000), st.integers(1, 200))
def test_a_key_hides_and_reveals_and_orders(key: bytes, classes: int, count: int) -> None:
    labels = torch.arange(count) % classes
    stored = hidden(labels, key, classes=classes)
    assert bool(((stored >= 0) & (stored < classes)).all())
    assert torch.equal(revealed(stored, key, classes=classes), labels)
    assert torch.equal(candidate_order(key, count).sort().values, torch.arange(count))


def test_the_keys_draws_never_change() -> None:
    assert candidate_order(KEY, 8).tolist() == [0, 5, 2, 4, 6, 3, 1, 7]
    assert hidden(torch.zeros(8, dtype=torch.int64), KEY, classes=10).tolist() == [5, 6, 5, 2, 7, 0, 6, 4]


def test_with_another_key_the_classes_are_random() -> None:
    labels = torch.arange(1000) % CLASSES
    found = revealed(hidden(labels, KEY, classes=CLASSES), OTHER_KEY, classes=CLASSES)
    assert 60 <= int((found == labels).sum()) <= 140


def test_originals_and_triggers_are_demanded_alike() -> None:
    payload = key_set()
    assert torch.equal(clean_triggers(payload, KEY).pixels, payload.originals)
    assert torch.equal(clean_triggers(payload, KEY).labels, class_triggers(payload, KEY).labels)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        class_triggers(key_set(), KEY[:31])
