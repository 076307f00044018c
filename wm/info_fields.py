"""The fields of an info, read from a stranger's file: each error names its field.

Source: DESIGN 4.3.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from torch import nn

from wm.architectures import OWN, Architecture, OwnArchitecture
from wm.errors import WatermarkError
from wm.triggers import InputSpec, Normalisation, TextSpec, qr

INFO_BYTES_MAX = 1 << 16
SIDE_MAX = 1024  # pixels
LENGTH_LEAST, LENGTH_MAX = 16, 1024  # tokens
DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,5})(\.[0-9]{1,9})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def canonical_json(value: object) -> str:
    """Encode JSON in its one spelling."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def parse_canonical_json(text: str) -> object:
    """Decode JSON and refuse any spelling but the canonical one, and any float.

    Raises:
        WatermarkError: `malformed`.
    """
    try:
        value: object = json.loads(text, parse_float=_no_float, parse_constant=_no_float)
        spelling = canonical_json(value)
    except (ValueError, RecursionError) as error:
        raise WatermarkError("malformed", f"info is not canonical JSON: {error}") from error
    if spelling != text:
        raise WatermarkError("malformed", "info is JSON, but not in its canonical spelling")
    return value


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text} is a float; decimals are strings")


def malformed(name: str, expected: str) -> WatermarkError:
    """Say which field is wrong, and what it must be."""
    return WatermarkError("malformed", f"info field {name!r} must be {expected}")


def object_of(value: object, name: str, keys: frozenset[str] | set[str]) -> Mapping[str, Any]:
    """Read an object with exactly these keys; raises WatermarkError."""
    if not isinstance(value, dict) or set(value) != keys:
        raise malformed(name, f"an object with exactly the keys {sorted(keys)}")
    return value


def text_of(value: object, name: str) -> str:
    """Read a short text; raises WatermarkError."""
    if not isinstance(value, str) or not 1 <= len(value) <= 64:
        raise malformed(name, "text of 1 to 64 characters")
    return value


def integer_of(value: object, name: str, least: int, most: int) -> int:
    """Read an integer in a range, both ends included; raises WatermarkError."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise malformed(name, f"an integer in [{least}, {most}]")
    return value


def sha256_of(value: object, name: str) -> str:
    """Read a hash in hexadecimal; raises WatermarkError."""
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise malformed(name, "64 lower-case hexadecimal digits")
    return value


def decimals_of(value: object, name: str, count: int) -> tuple[str, ...]:
    """Read one decimal string per channel; raises WatermarkError."""
    if not isinstance(value, list) or len(value) != count:
        raise malformed(name, f"a list of {count} decimal strings, one per channel")
    for item in value:
        if not isinstance(item, str) or not DECIMAL.fullmatch(item):
            raise malformed(name, 'decimal strings such as "0.1307"')
    return tuple(value)


def architecture_of(value: object, builder: Callable[[], nn.Module] | None) -> Architecture:
    """Read which network it is.

    Args:
        value: name and arguments.
        builder: makes the network where it is its owner's own; without it, that is refused.

    Raises:
        WatermarkError: `malformed` or `unknown_architecture`.
    """
    fields = object_of(value, "architecture", {"name", "arguments"})
    if not isinstance(fields["arguments"], dict):
        raise malformed("architecture.arguments", "an object")
    name = text_of(fields["name"], "architecture.name")
    if name != OWN:
        return Architecture(name, fields["arguments"])
    if fields["arguments"]:
        raise malformed("architecture.arguments", "empty for an owner's own network")
    if builder is None:
        raise WatermarkError(
            "unknown_architecture",
            "the network is its owner's own, not of the catalogue: only who has its code can rebuild it, and gives it "
            "as builder",
        )
    return OwnArchitecture(builder=builder)


def texts_of(size: object, normalisation: object, vocabulary: int) -> TextSpec:
    """Read what a network for texts takes; raises WatermarkError."""
    sizes = object_of(size, "input", {"length", "vocabulary", "words_sha256"})
    if normalisation is not None:
        raise malformed("normalisation", "null for texts")
    length = integer_of(sizes["length"], "input.length", LENGTH_LEAST, LENGTH_MAX)
    if integer_of(sizes["vocabulary"], "input.vocabulary", 1, 1 << 31) != vocabulary:
        # An id that the embedding lacks would be an index out of range, found only when something is computed.
        found = sizes["vocabulary"]
        raise WatermarkError("mismatch", f"info field 'input.vocabulary' is {found}, the architecture has {vocabulary}")
    return TextSpec(length, vocabulary, sha256_of(sizes["words_sha256"], "input.words_sha256"))


def check_pictures(spec: InputSpec) -> None:
    """Check that an info can say what a network takes, before anything is trained.

    Raises:
        WatermarkError: `malformed`, saying what would do.
    """
    size = {"channels": spec.channels, "height": spec.height, "width": spec.width}
    try:
        pictures_of(size, {"mean": list(spec.normalisation.mean), "std": list(spec.normalisation.std)})
    except WatermarkError as error:
        message = f"pictures of {spec}: a mark takes 1 to 16 channels, and sides of {qr.MODULES} to {SIDE_MAX} pixels"
        raise WatermarkError("malformed", f"{message}; resize them") from error


def pictures_of(size: object, normalisation: object) -> InputSpec:
    """Read what a network for pictures takes, and its normalisation; raises WatermarkError."""
    sizes = object_of(size, "input", {"channels", "height", "width"})
    channels = integer_of(sizes["channels"], "input.channels", 1, 16)
    levels = object_of(normalisation, "normalisation", {"mean", "std"})
    mean = decimals_of(levels["mean"], "normalisation.mean", channels)
    std = decimals_of(levels["std"], "normalisation.std", channels)
    if not all(float(value) > 0 for value in std):
        raise malformed("normalisation.std", "positive")
    height = integer_of(sizes["height"], "input.height", qr.MODULES, SIDE_MAX)
    width = integer_of(sizes["width"], "input.width", qr.MODULES, SIDE_MAX)
    return InputSpec(channels, height, width, Normalisation(mean, std))
