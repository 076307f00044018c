"""Requests are what servers of the protocol read, and nothing in an answer is believed that is not what it says."""

import json
import struct

import numpy as np
import pytest
from endpoints import SHAPE, pictures
from hypothesis import given
from hypothesis import strategies as st

from node.endpoint.errors import EndpointError
from node.endpoint.protocol import Questions, read_classes, read_model

ASKED = pictures(3)
PIXELS = {"name": "pixels", "datatype": "UINT8", "shape": [-1, 3, 4, 5]}
CLASS = {"name": "class", "datatype": "INT64", "shape": [-1]}
SCORES = {"name": "scores", "datatype": "FP32", "shape": [-1, 4]}


def metadata(*, inputs: object = None, outputs: object = None) -> bytes:
    return json.dumps({"name": "m", "inputs": inputs or [PIXELS], "outputs": outputs or [SCORES, CLASS]}).encode()


def answer(data: object, **changes: object) -> bytes:
    return json.dumps({"outputs": [{**CLASS, "shape": [2], "data": data, **changes}]}).encode()


@pytest.mark.parametrize(
    ("inputs", "outputs", "output", "batch_max"),
    [
        ([PIXELS], [SCORES, CLASS], "class", None),
        ([PIXELS], [SCORES], "scores", None),
        ([PIXELS], [{**SCORES, "name": "a"}, SCORES], "a", None),
        ([PIXELS], [{**CLASS, "shape": [-1, 1]}], "class", None),
        ([PIXELS], [{**SCORES, "datatype": "FP64", "shape": [-1, -1]}], "scores", None),
        ([{**PIXELS, "shape": [8, 3, 4, 5]}], [CLASS], "class", 8),
        ([{**PIXELS, "shape": [-1, 3, -1, -1]}], [CLASS], "class", None),
    ],
)
def test_metadata_says_what_is_asked_and_which_output_is_read(inputs, outputs, output, batch_max):
    model = read_model(metadata(inputs=inputs, outputs=outputs), ASKED)
    assert (model.output.name, model.batch_max, model.is_channels_last) == (output, batch_max, False)


def test_channels_may_come_last():
    assert read_model(metadata(inputs=[{**PIXELS, "shape": [-1, 4, 5, 3]}]), ASKED).is_channels_last


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": [PIXELS, PIXELS]},
        {"inputs": [{**PIXELS, "shape": [-1, 3, 32, 32]}]},
        {"inputs": [{**PIXELS, "shape": [3, 4, 5]}]},
        {"inputs": [{**PIXELS, "datatype": "BYTES"}]},
        {"outputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}]},
        {"outputs": [{**SCORES, "shape": [-1, 65_537]}]},
        {"outputs": [{**SCORES, "shape": [-1, 1]}]},
        {"outputs": [{**SCORES, "shape": [-1, 0]}]},
        {"outputs": [{**CLASS, "shape": [-1, 5]}]},
    ],
)
def test_an_endpoint_that_takes_or_gives_something_else_is_not_asked(changes):
    with pytest.raises(EndpointError) as caught:
        read_model(metadata(**changes), ASKED)
    assert caught.value.reason == "wrong_input"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"inputs": NaN}',
        metadata(inputs=[PIXELS] * 65),
        metadata(inputs=[1]),
        metadata(inputs=[{**PIXELS, "shape": [-1, 3, 4, 5.0]}]),
        metadata(inputs=[{**PIXELS, "shape": [-2, 3, 4, 5]}]),
        metadata(inputs=[{**PIXELS, "name": "x" * 257}]),
        metadata(inputs=[{"name": "pixels", "datatype": "UINT8"}]),
    ],
)
def test_metadata_that_are_none_are_malformed(raw):
    with pytest.raises(EndpointError) as caught:
        read_model(raw, ASKED)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
def test_a_request_holds_the_pictures_as_the_endpoint_takes_them(datatype: str, last: bool):
    shape = [-1, 4, 5, 3] if last else [-1, 3, 4, 5]
    model = read_model(metadata(inputs=[{"name": 'p"x', "datatype": datatype, "shape": shape}]), ASKED)
    questions = Questions(model, ASKED)
    body = questions.request(ASKED.pixels)
    assert len(body) <= 3 * questions.picture_bytes_max + 200
    request = json.loads(body)
    (given_input,) = request["inputs"]
    assert (given_input["name"], given_input["datatype"], given_input["shape"]) == ('p"x', datatype, [3, *shape[1:]])
    assert request["outputs"] == [{"name": "class"}]
    pixels = np.frombuffer(b"".join(ASKED.pixels), np.uint8).reshape(3, 3, 4, 5)
    if datatype == "FP32":
        mean, std = (np.array(v, np.float64)[:, None, None] for v in (ASKED.mean, ASKED.std))
        pixels = ((pixels / 255 - mean.astype(float)) / std.astype(float)).astype(np.float32)
    expected = pixels.transpose(0, 2, 3, 1) if last else pixels
    assert np.array_equal(np.array(given_input["data"], pixels.dtype).reshape(expected.shape), expected)


@given(st.integers(0, 255))
def test_a_float_is_spelled_so_that_its_32_bits_read_back(byte: int):
    model = read_model(metadata(inputs=[{**PIXELS, "datatype": "FP32"}]), ASKED)
    (given_input,) = json.loads(Questions(model, ASKED).request([bytes([byte] * SHAPE.picture_bytes)]))["inputs"]
    exact = (byte / 255 - 0.25) / 0.25
    assert struct.pack("f", given_input["data"][20]) == struct.pack("f", exact)


def test_one_score_for_each_picture_tells_no_class():
    model = read_model(metadata(outputs=[{**SCORES, "shape": [-1, -1]}]), ASKED)
    with pytest.raises(EndpointError) as caught:
        read_classes(answer([0.1, 0.9], name="scores", datatype="FP32", shape=[2, 1]), model, 2)
    assert (caught.value.reason, caught.value.may_pass) == ("wrong_input", False)


def test_classes_are_read_flat_and_in_rows():
    model = read_model(metadata(), ASKED)
    assert read_classes(answer([3, 1]), model, 2) == [3, 1]
    assert read_classes(answer([3, 1], shape=[-1]), model, 2) == [3, 1]
    column = read_model(metadata(outputs=[{**CLASS, "shape": [-1, 1]}]), ASKED)
    assert read_classes(answer([[3], [1]], shape=[2, 1]), column, 2) == [3, 1]


def test_of_scores_the_greatest_is_the_class_and_of_equal_ones_the_first():
    model = read_model(metadata(outputs=[SCORES]), ASKED)
    for data in ([[0, 0.5, 0.5, -1], [1e300, 2, 3, 4]], [0, 0.5, 0.5, -1, 1e300, 2, 3, 4]):
        assert read_classes(
            json.dumps({"outputs": [{**SCORES, "shape": [2, 4], "data": data}]}).encode(), model, 2
        ) == [1, 0]


@pytest.mark.parametrize(
    "raw",
    [
        b"no",
        b"{}",
        json.dumps({"error": "no"}).encode(),
        json.dumps({"outputs": [{**CLASS, "name": "other", "shape": [2], "data": [1, 2]}]}).encode(),
        answer([1]),
        answer([1, 2, 3]),
        answer([1, 2], shape=[3]),
        answer([1, 2], shape=[1, 2]),
        answer([1, 2], datatype="INT32"),
        answer([1, -1]),
        answer([1, True]),
        answer([1, 2.0]),
        answer([1, 65_536]),
        answer([1, "2"]),
        answer([[1], 2]),
        answer({"0": 1}),
        answer(None),
    ],
)
def test_an_answer_that_is_not_what_the_metadata_promise_is_malformed(raw: bytes):
    with pytest.raises(EndpointError) as caught:
        read_classes(raw, read_model(metadata(), ASKED), 2)
    assert (caught.value.reason, caught.value.may_pass) == ("malformed", True)


@pytest.mark.parametrize(
    "data", ["[1,2]", "[[1,2],[3]]", "[1e999,1,1,1,1,1,1,1]", "[NaN,1,1,1,1,1,1,1]", "[]", "[null,1]"]
)
@pytest.mark.parametrize("shape", [[2, 4], [2, 0], [2, -1]])
def test_scores_that_are_none_are_malformed(data: str, shape: list[int]):
    model = read_model(metadata(outputs=[{**SCORES, "shape": [-1, -1]}]), ASKED)
    raw = (
        json.dumps({"outputs": [{**SCORES, "shape": shape, "data": 0}]})
        .replace('"data": 0', f'"data": {data}')
        .encode()
    )
    with pytest.raises(EndpointError) as caught:
        read_classes(raw, model, 2)
    assert caught.value.reason == "malformed"


def test_an_integer_that_no_float_holds_is_no_score():
    model = read_model(metadata(outputs=[{**SCORES, "shape": [-1, 2]}]), ASKED)
    raw = json.dumps({"outputs": [{**SCORES, "shape": [1, 2], "data": [10**400, 1]}]}).encode()
    with pytest.raises(EndpointError, match="finite"):
        read_classes(raw, model, 1)
