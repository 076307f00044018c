"""The subset of the Open Inference Protocol that nodes speak: metadata, requests, answers, as bytes and values.

What an endpoint sends is a stranger's: sizes are limited before it is parsed, and every value is checked. It has to say
what it takes; nothing is guessed beyond whether channels come first or last.

Source: Open Inference Protocol, REST (KServe V2): model metadata and inference; see docs/endpoint.md for the choices.
"""

import json
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from node.endpoint.errors import EndpointError
from node.endpoint.pictures import CLASSES_MAX, Pictures, Shape

NAME_CHARACTERS_MAX = 256
_TENSORS_MAX = 64
_INTEGERS = frozenset({"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"})
_FLOATS = frozenset({"FP32", "FP64"})
_VALUE_BYTES = 40  # of a number in JSON, with what stands between it and the next
_ENVELOPE_BYTES = 16 * 1024  # of everything but the numbers
# A parser holds everything else up for as long as it works, so an answer is no longer than it parses in a moment.
ANSWER_BYTES_MAX = 4 * 2**20
_SCORES_USUAL = 1000  # of a row, where the metadata name no number


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor as metadata and answers name it; -1 in its shape is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """How an endpoint is asked.

    Attributes:
        input: what it takes.
        is_channels_last: whether a pixel's channels stand beside each other.
        output: the output that is read.
        batch_max: pictures of one request; None where the endpoint names no number.
    """

    input: Tensor
    is_channels_last: bool
    output: Tensor
    batch_max: int | None

    @property
    def gives_classes(self) -> bool:
        """Whether the output is the class; else it is a row of scores."""
        return self.output.datatype in _INTEGERS

    @property
    def answered_max(self) -> int:
        """Pictures that one answer can be about, at least one."""
        return (ANSWER_BYTES_MAX - _ENVELOPE_BYTES) // self._row_bytes

    def answer_bytes_max(self, count: int) -> int:
        """The longest answer about so many pictures that is read."""
        return min(ANSWER_BYTES_MAX, _ENVELOPE_BYTES + count * self._row_bytes)

    @property
    def _row_bytes(self) -> int:
        row = 1 if self.gives_classes else self.output.shape[1]
        return (row if row > 0 else _SCORES_USUAL) * _VALUE_BYTES


def read_model(raw: bytes, pictures: Pictures) -> Model:
    """Read a model's metadata.

    Args:
        raw: the body of the answer.
        pictures: what it is to be asked about.

    Raises:
        EndpointError: malformed; wrong_input where it is not to be asked about such pictures.
    """
    metadata = _object(_parse(raw), "the metadata")
    inputs, outputs = (_tensors(metadata.get(name), name) for name in ("inputs", "outputs"))
    if len(inputs) != 1:
        raise EndpointError("wrong_input", f"its metadata names {len(inputs)} inputs; one is needed")
    taken = inputs[0]
    if taken.datatype not in {"UINT8", "FP32"}:
        raise EndpointError("wrong_input", f"it takes {taken.datatype}; UINT8 or FP32 is needed")
    size = pictures.shape
    is_first, is_last = (_fits(taken.shape, (-1, *_order(size, is_channels_last=last))) for last in (False, True))
    if not is_first and not is_last:
        raise EndpointError("wrong_input", f"it takes shape {list(taken.shape)}; the evidence's pictures are {size}")
    batch = taken.shape[0]
    return Model(
        input=taken,
        is_channels_last=not is_first,
        output=_chosen(outputs),
        batch_max=batch if batch > 0 else None,
    )


class Questions:
    """Writes requests about pictures.

    A number depends on nothing but the channel and the byte, so each is spelled once.

    Args:
        model: how the endpoint is asked.
        pictures: of which kind they are; their normalisation is applied where the endpoint takes floats.
    """

    def __init__(self, model: Model, pictures: Pictures) -> None:
        self._model, self._shape = model, pictures.shape
        if model.input.datatype == "UINT8":
            self._spelt = [[str(byte) for byte in range(256)]] * pictures.shape.channels
        else:
            levels = zip(pictures.mean, pictures.std, strict=True)
            self._spelt = [[_float32(byte, mean, std) for byte in range(256)] for mean, std in levels]

    @property
    def picture_bytes_max(self) -> int:
        """The most bytes that a picture can take in a request."""
        return sum((max(map(len, spelt)) + 1) * self._shape.plane_bytes for spelt in self._spelt)

    def request(self, pictures: Sequence[bytes]) -> bytes:
        """The body of a request about some pictures."""
        model = self._model
        shape = (len(pictures), *_order(self._shape, is_channels_last=model.is_channels_last))
        head = {"name": model.input.name, "datatype": model.input.datatype, "shape": shape}
        data = ",".join([self._spell(picture) for picture in pictures])
        outputs = json.dumps([{"name": model.output.name}])
        return f'{{"inputs":[{json.dumps(head)[:-1]},"data":[{data}]}}],"outputs":{outputs}}}'.encode()

    def _spell(self, picture: bytes) -> str:
        plane, channels = self._shape.plane_bytes, self._shape.channels
        numbers = [""] * len(picture)
        for channel, spelt in enumerate(self._spelt):
            here = slice(channel * plane, (channel + 1) * plane)
            place = slice(channel, None, channels) if self._model.is_channels_last else here
            numbers[place] = [spelt[byte] for byte in picture[here]]
        return ",".join(numbers)


def read_classes(raw: bytes, model: Model, count: int) -> list[int]:
    """Read the classes that an answer gives so many pictures.

    Raises:
        EndpointError: malformed, it does not hold what the metadata promise.
    """
    outputs = [_object(one, "an output") for one in _list(_object(_parse(raw), "the answer").get("outputs"), "outputs")]
    found = next((one for one in outputs if one.get("name") == model.output.name), None)
    if found is None:
        raise _malformed(f"the answer lacks the output {model.output.name!r}")
    tensor, data = _tensor(found), _flat(found.get("data"))
    if tensor.datatype != model.output.datatype or not _fits(tensor.shape, (count, *model.output.shape[1:])):
        raise _malformed(f"an output of {tensor.datatype}, shape {list(tensor.shape)}, for {count} pictures")
    row = tensor.shape[1] if len(tensor.shape) == 2 else 1
    if row < 1 or len(data) != count * row or (model.gives_classes and row != 1):
        raise _malformed(f"{len(data)} values in an output of shape {list(tensor.shape)}")
    if model.gives_classes:
        return [_class(value) for value in data]
    if row == 1:
        raise EndpointError("wrong_input", "it gives one score for each picture, which tells no class")
    return [_greatest(data[first : first + row]) for first in range(0, len(data), row)]


def _parse(raw: bytes) -> object:
    try:
        value: object = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"not JSON: {error}") from error
    return value


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _malformed(detail: str) -> EndpointError:
    return EndpointError("malformed", detail[:300], may_pass=True)


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed(f"{what} is no JSON object")
    return value


def _list(value: object, what: str) -> list[object]:
    if not isinstance(value, list) or len(value) > _TENSORS_MAX:
        raise _malformed(f"{what!r} is no list of at most {_TENSORS_MAX} tensors")
    return value


def _tensors(value: object, what: str) -> list[Tensor]:
    return [_tensor(one) for one in _list(value, what)]


def _tensor(value: object) -> Tensor:
    tensor = _object(value, "a tensor")
    name, datatype, shape = (tensor.get(field) for field in ("name", "datatype", "shape"))
    if not isinstance(name, str) or not isinstance(datatype, str) or len(name) > NAME_CHARACTERS_MAX:
        raise _malformed("a tensor without a name or a datatype")
    if not isinstance(shape, list) or len(shape) > 8 or not all(_is_size(size) for size in shape):
        raise _malformed(f"tensor {name[:40]!r} without a shape")
    return Tensor(name=name, datatype=datatype[:16], shape=tuple(shape))


def _is_size(size: object) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and -1 <= size <= 2**31


def _order(size: Shape, *, is_channels_last: bool) -> tuple[int, int, int]:
    if is_channels_last:
        return size.height, size.width, size.channels
    return size.channels, size.height, size.width


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether two shapes are the same where neither says that any size will do."""
    return len(shape) == len(wanted) and all(a == b or -1 in (a, b) for a, b in zip(shape, wanted, strict=True))


def _chosen(outputs: list[Tensor]) -> Tensor:
    """The output that tells the class: integers before scores, since who gives both has decided between equals."""
    for tensor in outputs:
        if tensor.datatype in _INTEGERS and (len(tensor.shape) == 1 or tensor.shape[1:] in {(1,), (-1,)}):
            return tensor
    for tensor in outputs:
        # Of one score alone the greatest is always the first: whatever it means, it is no class.
        is_row = len(tensor.shape) == 2 and (tensor.shape[1] == -1 or 2 <= tensor.shape[1] <= CLASSES_MAX)
        if tensor.datatype in _FLOATS and is_row:
            return tensor
    raise EndpointError("wrong_input", "none of its outputs is a class or a row of scores for each picture")


def _float32(byte: int, mean: str, std: str) -> str:
    """A normalised pixel, rounded to 32 bits and spelled so that it reads back as the same."""
    (rounded,) = struct.unpack("f", struct.pack("f", (byte / 255 - float(mean)) / float(std)))
    return f"{rounded:.9g}"


def _flat(data: object) -> list[object]:
    """The values of a tensor, flat or one list for each picture."""
    if not isinstance(data, list):
        raise _malformed("an output without data")
    if data and isinstance(data[0], list):
        if not all(isinstance(row, list) for row in data):
            raise _malformed("an output with rows and values side by side")
        return [value for row in data for value in row]
    return data


def _class(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < CLASSES_MAX:
        raise _malformed(f"a class must be an integer in [0, {CLASSES_MAX})")
    return value


def _greatest(scores: list[object]) -> int:
    numbers = [score for score in scores if isinstance(score, int | float) and not isinstance(score, bool)]
    if len(numbers) != len(scores) or not all(abs(number) <= sys.float_info.max for number in numbers):
        raise _malformed("scores must be finite numbers")
    return numbers.index(max(numbers))
