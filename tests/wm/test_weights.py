"""Promised: weights fit their architecture exactly, or are refused by the tensor's name."""

from pathlib import Path

import pytest
import torch

import wm
from wm import tensorfile
from wm.architectures import Architecture, build
from wm.errors import WatermarkError
from wm.weights import load_backbone, load_transferred, load_weights, save_weights

pytestmark = pytest.mark.long

ARCHITECTURE = Architecture("resnet18", {"num_classes": 10})


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return build(ARCHITECTURE, seed=1).state_dict()


def written(tmp_path: Path, tensors: dict[str, torch.Tensor], **changes: torch.Tensor | None) -> Path:
    path = tmp_path / "suspect.safetensors"
    renamed = {name.replace("__", "."): value for name, value in changes.items()}
    kept = {name: value for name, value in (tensors | renamed).items() if value is not None}
    tensorfile.write(path, kept)
    return path


def test_a_model_survives_the_disk_whatever_its_memory_format(tmp_path: Path) -> None:
    model = build(ARCHITECTURE, seed=3).to(memory_format=torch.channels_last)
    sha256 = save_weights(model, tmp_path / "m")
    loaded = load_weights(tmp_path / "m", ARCHITECTURE)
    assert sha256 == tensorfile.sha256_of(tmp_path / "m")
    assert not loaded.training
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_diverged_model_is_not_saved(tmp_path: Path) -> None:
    model = build(ARCHITECTURE, seed=3)
    torch.nn.init.constant_(model.fc.bias, torch.nan)
    with pytest.raises(WatermarkError, match=r"fc\.bias"):
        save_weights(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()


WRONG = [
    ("layer1__0__conv1__weight", None, "mismatch"),
    ("layer1__0__conv1__weight", torch.zeros(64, 64, 3, 4), "mismatch"),
    ("layer1__0__conv1__weight", torch.zeros(64, 64, 3, 3, dtype=torch.int32), "mismatch"),
    ("layer1__0__conv1__weight", torch.full((64, 64, 3, 3), 1e300, dtype=torch.float64), "malformed"),
    ("conv1__weight", torch.full((64, 3, 7, 7), torch.inf), "malformed"),
    ("bn1__running_var", torch.full((64,), torch.nan), "malformed"),
]


@pytest.mark.parametrize(("name", "tensor", "code"), WRONG)
def test_a_tensor_of_the_backbone_that_is_wrong_is_refused_by_name(
    tmp_path: Path, tensors: dict[str, torch.Tensor], owner, name: str, tensor: torch.Tensor | None, code: str
) -> None:
    path = written(tmp_path, tensors, **{name: tensor})
    for load in (lambda: load_weights(path, ARCHITECTURE), lambda: load_backbone(path, owner.embedding.info)):
        with pytest.raises(WatermarkError) as caught:
            load()
        assert caught.value.code == code
        assert name.replace("__", ".") in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_copy_in_another_width_is_read_as_the_numbers_that_it_holds(
    tmp_path: Path, tensors: dict[str, torch.Tensor], owner, dtype: torch.dtype
) -> None:
    path = tmp_path / "suspect.safetensors"
    copied = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
    tensorfile.write(path, copied)
    for loaded in (load_weights(path, ARCHITECTURE), load_backbone(path, owner.embedding.info)):
        weight = loaded.state_dict()["layer1.0.conv1.weight"]
        assert weight.dtype == torch.float32
        assert torch.equal(weight, copied["layer1.0.conv1.weight"].float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_mark_is_found_in_a_copy_in_half_precision(tmp_path: Path, owner, dtype: torch.dtype) -> None:
    marked = load_weights(owner.model_path, owner.embedding.info.architecture).state_dict()
    tensorfile.write(tmp_path / "half", {k: v.to(dtype) if v.is_floating_point() else v for k, v in marked.items()})
    found = wm.count_matched(
        load_backbone(tmp_path / "half", owner.embedding.info), owner.embedding.head, owner.embedding.info, owner.key
    )
    assert found >= owner.embedding.info.triggers * 0.99


def test_a_replaced_classifier_is_refused_as_a_model_but_does_not_save_a_thief(
    tmp_path: Path, tensors: dict[str, torch.Tensor], owner
) -> None:
    path = written(tmp_path, tensors, fc__weight=None, fc__bias=None, classifier=torch.full((3,), torch.nan))
    with pytest.raises(WatermarkError, match="classifier"):
        load_weights(path, ARCHITECTURE)
    loaded = load_backbone(path, owner.embedding.info)
    assert torch.equal(loaded.state_dict()["conv1.weight"], tensors["conv1.weight"])


def test_a_file_over_the_limit_is_refused(owner) -> None:
    with pytest.raises(WatermarkError) as caught:
        load_weights(owner.model_path, ARCHITECTURE, file_bytes_max=1000)
    assert caught.value.code == "too_large"


def test_a_public_model_for_other_classes_gives_all_but_its_classifier(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    path = written(tmp_path, tensors, fc__weight=torch.ones(1000, 512), fc__bias=torch.ones(1000), other=torch.ones(1))
    loaded, fresh = load_transferred(path, ARCHITECTURE, seed=2).state_dict(), build(ARCHITECTURE, seed=2).state_dict()
    assert torch.equal(loaded["layer3.0.conv1.weight"], tensors["layer3.0.conv1.weight"])
    assert not torch.equal(loaded["layer3.0.conv1.weight"], fresh["layer3.0.conv1.weight"])
    assert torch.equal(loaded["fc.weight"], fresh["fc.weight"])


def test_a_file_in_which_nothing_fits_is_no_public_model(tmp_path: Path) -> None:
    tensorfile.write(tmp_path / "m", {"conv1.weight": torch.ones(1)})
    with pytest.raises(WatermarkError, match="no tensor of resnet18") as refused:
        load_transferred(tmp_path / "m", ARCHITECTURE, seed=2)
    assert refused.value.code == "mismatch"


def test_a_public_model_of_another_type_or_with_a_value_that_is_not_finite_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    for value in (tensors["conv1.weight"].int(), torch.full_like(tensors["conv1.weight"], torch.nan)):
        with pytest.raises(WatermarkError, match=r"conv1\.weight"):
            load_transferred(written(tmp_path, tensors, conv1__weight=value), ARCHITECTURE, seed=2)
