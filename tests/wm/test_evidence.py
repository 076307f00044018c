"""Promised: an evidence file is read back whole, and refused when its parts do not fit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from wm import tensorfile
from wm.alignment import RESPONSES, make_reference
from wm.errors import WatermarkError
from wm.evidence import EvidenceFile, load_evidence, save_evidence, with_reference
from wm.info_fields import canonical_json


def raw(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as handle:
        return {name: handle.get_tensor(name) for name in handle.keys()}, handle.metadata()  # noqa: SIM118 (no mapping)


def test_an_evidence_file_survives_the_disk(owner) -> None:
    loaded = load_evidence(owner.evidence_path)
    assert loaded.salt == bytes(32)
    assert loaded.info.model_sha256 == tensorfile.sha256_of(owner.model_path)
    features = torch.randn(4, loaded.head.mean.shape[0])
    assert torch.equal(loaded.head(features), owner.embedding.head(features))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", "wmreg-evidence/2"),
        ("salt", "00"),
        ("salt", "G" * 64),
        ("info", "{}"),
        ("surprise", "1"),
        ("salt", None),
        ("info", None),
    ],
)
def test_wrong_metadata_is_refused(owner, tmp_path: Path, name: str, value: str | None) -> None:
    tensors, metadata = raw(owner.evidence_path)
    changed = {key: text for key, text in (metadata | {name: value}).items() if text is not None}
    tensorfile.write(tmp_path / "e", tensors, changed)
    with pytest.raises(WatermarkError) as caught:
        load_evidence(tmp_path / "e")
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pooling", 3),
        ("taps", [{"module": "layer1", "shape": [64, 9, 8]}]),
        ("taps", [{"module": "layer1", "shape": [64, 8, 8]}]),
    ],
)
def test_an_info_that_does_not_fit_the_head_or_the_architecture_is_refused(
    owner, tmp_path: Path, field: str, value: object
) -> None:
    tensors, metadata = raw(owner.evidence_path)
    fields = json.loads(metadata["info"]) | {field: value}
    tensorfile.write(tmp_path / "e", tensors, metadata | {"info": canonical_json(fields)})
    with pytest.raises(WatermarkError) as caught:
        load_evidence(tmp_path / "e")
    assert caught.value.code == "mismatch"


def test_a_tap_that_the_architecture_lacks_is_refused(owner, tmp_path: Path) -> None:
    tensors, metadata = raw(owner.evidence_path)
    fields = json.loads(metadata["info"]) | {"taps": [{"module": "layer9", "shape": [64, 8, 8]}]}
    tensorfile.write(tmp_path / "e", tensors, metadata | {"info": canonical_json(fields)})
    with pytest.raises(WatermarkError) as caught:
        load_evidence(tmp_path / "e")
    assert caught.value.code == "unknown_architecture"


def test_weights_given_as_evidence_are_refused(owner, tmp_path: Path) -> None:
    tensorfile.write(tmp_path / "e", {"a": torch.ones(2)})
    with pytest.raises(WatermarkError, match="metadata"):
        load_evidence(tmp_path / "e")


def test_a_salt_of_another_length_is_not_written(owner, tmp_path: Path) -> None:
    loaded = load_evidence(owner.evidence_path)
    with pytest.raises(ValueError, match="salt"):
        save_evidence(tmp_path / "e", replace(loaded, salt=b"short"))
    assert isinstance(loaded, EvidenceFile)


def test_a_reference_survives_the_disk_as_the_models_own_answers(owner) -> None:
    loaded = load_evidence(owner.evidence_path)
    made = make_reference(owner.embedding.model, loaded.info)
    assert torch.equal(loaded.reference.responses, made.responses)
    assert torch.equal(loaded.reference.scale, made.scale)
    assert torch.equal(loaded.reference.centre, made.centre)


def test_a_reference_is_read_as_the_info_says_and_of_a_head_that_knows_of_none_it_is_not_centred(owner) -> None:
    loaded = load_evidence(owner.evidence_path)
    assert loaded.info.reference.centred
    assert with_reference(loaded, owner.embedding.model).info == loaded.info
    silent = replace(loaded, info=replace(loaded.info, reference=None), reference=None)
    made = with_reference(silent, owner.embedding.model)
    assert (made.info.reference.centred, made.reference.centre) == (False, None)


def test_a_reference_and_what_the_info_says_of_it_go_together(owner, tmp_path: Path) -> None:
    loaded = load_evidence(owner.evidence_path)
    for torn in (replace(loaded, reference=None), replace(loaded, info=replace(loaded.info, reference=None))):
        with pytest.raises(ValueError, match="with_reference"):
            save_evidence(tmp_path / "e", torn)
    save_evidence(tmp_path / "e", replace(loaded, reference=None, info=replace(loaded.info, reference=None)))
    assert load_evidence(tmp_path / "e").reference is None


def test_a_reference_whose_tensors_are_lacking_is_refused(owner, tmp_path: Path) -> None:
    tensors, metadata = raw(owner.evidence_path)
    tensorfile.write(tmp_path / "e", {name: it for name, it in tensors.items() if name != RESPONSES}, metadata)
    with pytest.raises(WatermarkError) as caught:
        load_evidence(tmp_path / "e")
    assert caught.value.code == "mismatch"
