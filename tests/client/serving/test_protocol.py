"""Promises: a request is answered as the metadata say, and one that is none is told what was expected."""

import json

import pytest

from client.serving.protocol import BadRequestError, Request, Served

SERVED = Served(name="m", size=(1, 2, 2), classes=3, pictures_max=2)
PIXELS = [0, 1, 254, 255]


def request(*, data=None, outputs=None, **changes) -> bytes:
    given = {"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 2, 2], "data": PIXELS if data is None else data}
    body = {"inputs": [{**given, **changes}]}
    return json.dumps(body if outputs is None else body | {"outputs": outputs}).encode()


def test_flat_and_nested_pixels_are_the_same():
    flat = SERVED.read(request())
    assert flat == Request(id=None, pixels=bytes(PIXELS), count=1, outputs=("class", "scores"))
    for nested in ([[[[0, 1], [254, 255]]]], [PIXELS], [[0, 1], [254, 255]]):
        assert SERVED.read(request(data=nested)) == flat


def test_the_answer_holds_what_was_asked_for_and_of_equal_scores_the_first():
    wanted = SERVED.read(request(outputs=[{"name": "class"}]))
    scores = [[0.5, 1.5, 1.5], [3.0, -1.0, 0.0]]
    assert SERVED.answer(wanted, scores) == {
        "model_name": "m",
        "outputs": [{"name": "class", "datatype": "INT64", "shape": [2], "data": [1, 0]}],
    }
    both = SERVED.read(json.dumps({**json.loads(request()), "id": "42"}).encode())
    answer = SERVED.answer(both, scores)
    assert answer["id"] == "42"
    assert answer["outputs"][1] == {
        "name": "scores",
        "datatype": "FP32",
        "shape": [2, 3],
        "data": [0.5, 1.5, 1.5, 3.0, -1.0, 0.0],
    }


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "JSON object"),
        (b"{}", "inputs"),
        (b'{"inputs": [{}, {}]}', "inputs"),
        (b'{"inputs": [1]}', "inputs"),
        (request(name="image"), "name 'pixels'"),
        (request(datatype="FP32"), "datatype 'UINT8'"),
        (request(shape=[1, 2, 2]), "shape"),
        (request(shape=[1, 1, 2, 3]), "shape"),
        (request(shape=[True, 1, 2, 2]), "shape"),
        (request(shape="1122"), "shape"),
        (request(shape=[0, 1, 2, 2], data=[]), "1 to 2 pictures"),
        (request(shape=[3, 1, 2, 2], data=PIXELS * 3), "1 to 2 pictures"),
        (request(data=[0, 1, 2]), "4 pixels"),
        (request(data="AAECAw=="), "4 pixels"),
        (request(data=[[0, 1, 2], 3]), "4 pixels"),
        (request(data=[[[[[0, 1, 2, 3]]]]]), "4 pixels"),
        (request(data=[0, 1, 2, 256]), "0 to 255"),
        (request(data=[0, 1, 2, -1]), "0 to 255"),
        (request(data=[0, 1, 2, 0.5]), "0 to 255"),
        (request(data=[0, 1, 2, "3"]), "0 to 255"),
        (request(outputs=[]), "outputs"),
        (request(outputs=[{"name": "text"}]), "outputs"),
        (request(outputs=[{"name": ["class"]}]), "outputs"),
        (request(outputs=[{"name": "class"}, {"name": "class"}]), "outputs"),
        (request(outputs="class"), "outputs"),
        (request()[:-1] + b', "id": 7}', "id"),
        (request()[:-1] + f', "id": "{"x" * 257}"}}'.encode(), "id"),
    ],
)
def test_a_request_that_is_none_is_told_what_was_expected(raw, told):
    with pytest.raises(BadRequestError, match=told):
        SERVED.read(raw)
