"""Promised: a header that lies about its tensors is refused with a code, whatever it lies about."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from wm.architectures import Architecture, build
from wm.backbone import Tap
from wm.errors import WatermarkError
from wm.info import Info
from wm.triggers import InputSpec, Normalisation
from wm.weights import load_backbone, load_weights, save_weights

ARCHITECTURE = Architecture("squeezenet1_1", {"num_classes": 2})
INFO = Info(
    scheme="mtlsign",
    architecture=ARCHITECTURE,
    taps=(Tap("features.0", 64, 31, 31),),
    pooling=2,
    hidden=8,
    triggers=100,
    gamma="0.7",
    input=InputSpec(3, 64, 64, Normalisation(("0.5",) * 3, ("0.5",) * 3)),
)
BIAS, WEIGHT = "features.0.bias", "features.0.weight"  # both in front of the tap
Header = dict[str, Any]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "model"
    save_weights(build(ARCHITECTURE, seed=1), path)
    return path


def parts(path: Path) -> tuple[Header, bytes]:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def joined(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def refused(path: Path, content: bytes) -> str:
    """The code with which both readers refuse a file."""
    path.write_bytes(content)
    codes = set()
    for load in (lambda: load_backbone(path, INFO), lambda: load_weights(path, ARCHITECTURE)):
        with pytest.raises(WatermarkError) as caught:
            load()
        codes.add(caught.value.code)
    (code,) = codes
    return code


def change(name: str, **fields: object) -> Callable[[Header], None]:
    def apply(header: Header) -> None:
        header[name] |= fields

    return apply


def shift(name: str, begin: int, end: int) -> Callable[[Header], None]:
    def apply(header: Header) -> None:
        first, last = header[name]["data_offsets"]
        header[name]["data_offsets"] = [first + begin, last + end]

    return apply


def alias(header: Header) -> None:
    header[BIAS]["data_offsets"] = header["features.3.squeeze.bias"]["data_offsets"]
    header[BIAS]["shape"] = header["features.3.squeeze.bias"]["shape"]


def add(**tensor: object) -> Callable[[Header], None]:
    def apply(header: Header) -> None:
        header["surplus"] = tensor

    return apply


LIES: dict[str, tuple[Callable[[Header], None], str]] = {
    "two tensors share their bytes": (alias, "malformed"),
    "a tensor begins inside another": (shift(BIAS, -4, 0), "malformed"),
    "a tensor ends inside another": (shift(BIAS, 0, 4), "malformed"),
    "a gap": (shift(BIAS, 4, 0), "malformed"),
    "an end before the beginning": (change(BIAS, data_offsets=[256, 0]), "malformed"),
    "a place behind the file": (change(BIAS, data_offsets=[1 << 40, (1 << 40) + 256]), "malformed"),
    "a place behind all files": (change(BIAS, data_offsets=[(1 << 64) - 256, 1 << 64]), "malformed"),
    "a negative place": (change(BIAS, data_offsets=[-256, 0]), "malformed"),
    "a place that is no number": (change(BIAS, data_offsets=[0.0, 256.0]), "malformed"),
    "one offset": (change(BIAS, data_offsets=[0]), "malformed"),
    "a shape larger than its bytes": (change(BIAS, shape=[1 << 20]), "malformed"),
    "a shape that overflows": (change(BIAS, shape=[1 << 32, 1 << 32, 4]), "malformed"),
    "a shape beyond 64 bits": (change(BIAS, shape=[1 << 70]), "malformed"),
    "a negative shape": (change(BIAS, shape=[-64]), "malformed"),
    "another shape of as many numbers": (change(BIAS, shape=[8, 8]), "mismatch"),
    "very many dimensions": (change(BIAS, shape=[64] + [1] * 5000), "mismatch"),
    "no shape": (change(BIAS, shape=None), "malformed"),
    "a type that is none": (change(BIAS, dtype="X99"), "malformed"),
    "integers of the same size": (change(BIAS, dtype="I32"), "mismatch"),
    "unsigned integers of the same size": (change(BIAS, dtype="U32"), "mismatch"),
    "half as many larger numbers": (change(BIAS, dtype="F64", shape=[32]), "mismatch"),
    "twice as many smaller numbers": (change(BIAS, dtype="BF16", shape=[128]), "mismatch"),
    "bytes": (change(BIAS, dtype="U8", shape=[256]), "mismatch"),
    "numbers of four bits": (change(BIAS, dtype="F4", shape=[512]), "mismatch"),
    "numbers of six bits": (change(BIAS, dtype="F6_E2M3", shape=[64]), "malformed"),
    "complex numbers": (change(BIAS, dtype="C64", shape=[32]), "mismatch"),
    "metadata that is no text": (lambda header: header.update(__metadata__={"a": 1}), "malformed"),
    "metadata that is a tensor": (lambda header: header.update(__metadata__=header[BIAS]), "malformed"),
    "a tensor that is none": (lambda header: header.update({BIAS: []}), "malformed"),
    "a tensor that is lacking": (lambda header: header.pop(BIAS), "malformed"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(good: Path, tmp_path: Path, lie: str):
    header, data = parts(good)
    apply, code = LIES[lie]
    apply(header)
    assert refused(tmp_path / "bad", joined(json.dumps(header).encode(), data)) == code


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "BOOL", "I8"])
@pytest.mark.parametrize("name", [BIAS, WEIGHT])
def test_a_type_trick_is_refused_by_what_it_would_become(good: Path, tmp_path: Path, name: str, dtype: str):
    header, data = parts(good)
    begin, end = header[name]["data_offsets"]
    header[name] |= {"dtype": dtype, "shape": [end - begin]}
    assert refused(tmp_path / "bad", joined(json.dumps(header).encode(), data)) == "mismatch"


def test_the_tensors_may_be_listed_in_any_order(good: Path, tmp_path: Path):
    header, data = parts(good)
    reversed_header = dict(reversed(header.items()))
    assert list(reversed_header) != list(header)
    (tmp_path / "model").write_bytes(joined(json.dumps(reversed_header).encode(), data))
    loaded = load_weights(tmp_path / "model", ARCHITECTURE)
    assert all(torch.equal(value, load_file(good)[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    "twice",
    [
        '"{name}":{{"dtype":"I32","shape":[64],"data_offsets":[{begin},{end}]}},',
        '"features.0.b\\u0069as":{{"dtype":"F32","shape":[64],"data_offsets":[{begin},{end}]}},',
        '"__metadata__":{{"a":"1","a":"2"}},',
    ],
)
def test_a_name_that_stands_twice_is_refused(good: Path, tmp_path: Path, twice: str):
    header, data = parts(good)
    begin, end = header[BIAS]["data_offsets"]
    text = json.dumps(header)
    forged = "{" + twice.format(name=BIAS, begin=begin, end=end) + text[1:]
    assert refused(tmp_path / "bad", joined(forged.encode(), data)) == "malformed"


@pytest.mark.parametrize(
    "header",
    [
        b"{" + b"\xff" * 100 + b"}",
        b'{"a":' * 100_000,
        b"{" + b"[" * 100_000,
        b'\xef\xbb\xbf{"a":{}}',
        b"{}{}",
        b"{}",
        b'{"a":NaN}',
    ],
)
def test_a_header_that_is_no_header_is_refused(tmp_path: Path, header: bytes):
    assert refused(tmp_path / "bad", joined(header, bytes(64))) == "malformed"


def test_bytes_behind_the_tensors_are_refused(good: Path, tmp_path: Path):
    assert refused(tmp_path / "bad", good.read_bytes() + bytes(8)) == "malformed"


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_not_finite_is_refused(good: Path, tmp_path: Path, value: float):
    tensors = load_file(good)
    tensors[WEIGHT].view(-1)[-1] = value
    save_file(tensors, tmp_path / "bad")
    assert refused(tmp_path / "bad", (tmp_path / "bad").read_bytes()) == "malformed"


def test_a_pipe_is_refused_and_nobody_waits_for_its_writer(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    writing = os.open(tmp_path / "pipe", os.O_RDWR)  # who would open it for reading would not wait here
    os.write(writing, bytes(9))
    try:
        with pytest.raises(WatermarkError, match="pipe is no file but a pipe") as caught:
            load_weights(tmp_path / "pipe", ARCHITECTURE)
    finally:
        os.close(writing)
    assert caught.value.code == "malformed"
