"""Requests and answers of the Open Inference Protocol, as far as this server has it: one input, two outputs.

Source: Open Inference Protocol, REST (KServe V2); docs/endpoint.md says what of it is here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

INPUT = "pixels"
CLASS, SCORES = "class", "scores"
_ID_CHARACTERS_MAX = 256


class BadRequestError(Exception):
    """A request that this server does not understand; the message says why, to whoever sent it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request to classify pictures.

    Attributes:
        id: the caller's word for it; None for none.
        pixels: 8 bits each, in row-major order.
        count: pictures, one at least.
        outputs: names of those that are wanted, in the caller's order.
    """

    id: str | None
    pixels: bytes
    count: int
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a model's metadata say.

    Attributes:
        name: of the model.
        size: of a picture: channels, height, width.
        classes: how many it tells apart.
        pictures_max: of one request.
    """

    name: str
    size: tuple[int, int, int]
    classes: int
    pictures_max: int

    def metadata(self) -> dict[str, object]:
        """The model's metadata."""
        return {
            "name": self.name,
            "platform": "wmreg",
            "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *self.size]}],
            "outputs": [
                {"name": CLASS, "datatype": "INT64", "shape": [-1]},
                {"name": SCORES, "datatype": "FP32", "shape": [-1, self.classes]},
            ],
        }

    def read(self, raw: bytes) -> Request:
        """Read a request.

        Raises:
            BadRequestError: naming the field, what is wrong with it, and what is expected.
        """
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise BadRequestError(f"the body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise BadRequestError("the body must be a JSON object with inputs")
        given = body.get("inputs")
        if not isinstance(given, list) or len(given) != 1 or not isinstance(given[0], dict):
            raise BadRequestError(f"inputs: exactly one is expected, {INPUT!r}")
        count = self._count(given[0])
        return Request(
            id=_id(body.get("id")), pixels=self._pixels(given[0], count), count=count, outputs=_outputs(body)
        )

    def answer(self, request: Request, scores: Sequence[Sequence[float]]) -> dict[str, object]:
        """The answer to a request; of equal scores the first is the class."""
        classes = [row.index(max(row)) for row in scores]
        made = {
            CLASS: {"name": CLASS, "datatype": "INT64", "shape": [len(classes)], "data": classes},
            SCORES: {
                "name": SCORES,
                "datatype": "FP32",
                "shape": [len(classes), self.classes],
                "data": [score for row in scores for score in row],
            },
        }
        answer: dict[str, object] = {"model_name": self.name, "outputs": [made[name] for name in request.outputs]}
        return answer if request.id is None else answer | {"id": request.id}

    def _count(self, given: Mapping[str, Any]) -> int:
        if given.get("name") != INPUT or given.get("datatype") != "UINT8":
            raise BadRequestError(f"inputs[0]: name {INPUT!r} and datatype 'UINT8' are expected")
        shape, expected = given.get("shape"), list(self.size)
        if not isinstance(shape, list) or len(shape) != 4 or shape[1:] != expected or type(shape[0]) is not int:
            raise BadRequestError(f"inputs[0].shape: [n, {', '.join(map(str, expected))}] is expected")
        if not 1 <= shape[0] <= self.pictures_max:
            raise BadRequestError(f"inputs[0].shape: 1 to {self.pictures_max} pictures at once, not {shape[0]}")
        return shape[0]

    def _pixels(self, given: Mapping[str, Any], count: int) -> bytes:
        data = given.get("data")
        for _ in self.size:  # as many levels as a nested tensor has above its rows
            if isinstance(data, list) and data and all(isinstance(row, list) for row in data):
                data = [value for row in data for value in row]
        channels, height, width = self.size
        expected = count * channels * height * width
        if not isinstance(data, list) or len(data) != expected:
            raise BadRequestError(f"inputs[0].data: {expected} pixels are expected for this shape")
        try:
            return bytes(data)
        except (TypeError, ValueError) as error:
            raise BadRequestError("inputs[0].data: every pixel must be an integer from 0 to 255") from error


def _id(value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) > _ID_CHARACTERS_MAX):
        raise BadRequestError(f"id: text of at most {_ID_CHARACTERS_MAX} characters is expected")
    return value


def _outputs(body: Mapping[str, Any]) -> tuple[str, ...]:
    wanted = body.get("outputs")
    if wanted is None:
        return CLASS, SCORES
    named = [one.get("name") if isinstance(one, dict) else None for one in wanted] if isinstance(wanted, list) else []
    names = [name for name in named if name in (CLASS, SCORES)]
    if not names or names != named or len(set(names)) != len(names):
        raise BadRequestError(f"outputs: {CLASS!r}, {SCORES!r} or both are expected, each once")
    return tuple(names)
