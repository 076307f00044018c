"""`info` of a scheme without a branch: which network, what it takes, and the scheme's own few numbers.

The rules are those of `wm.info`: canonical JSON, one spelling for one meaning, no floats, every field checked. What is
the scheme's own is under `payload`; the tensors that go with it are in the evidence file.

Source: DESIGN 4.3, 6.1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from torch import nn

from wm.architectures import Architecture, OwnArchitecture, vocabulary_of
from wm.errors import WatermarkError
from wm.info_fields import (
    INFO_BYTES_MAX,
    architecture_of,
    canonical_json,
    integer_of,
    malformed,
    object_of,
    parse_canonical_json,
    pictures_of,
    sha256_of,
    text_of,
    texts_of,
)
from wm.triggers import InputSpec, Spec, TextSpec

CLASSES_MAX = 1 << 16
NULLS_MAX = 16
_KEYS = frozenset(
    {
        "architecture",
        "base_sha256",
        "classes",
        "input",
        "model_sha256",
        "normalisation",
        "nulls_sha256",
        "payload",
        "scheme",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeInfo:
    """What a node needs to count a mark that has no branch, beside the evidence's tensors.

    Attributes:
        scheme: its name.
        architecture: of the marked model.
        input: what it takes.
        classes: how many it tells apart.
        payload: the scheme's own fields.
        model_sha256: of the marked model's file; None before it is saved.
        base_sha256: of the public weights that the model was fine-tuned from, if any.
        nulls_sha256: of models that were trained for the same task without the mark, sorted; a scheme whose chance is
            measured on them needs some.
    """

    scheme: str
    architecture: Architecture
    input: Spec
    classes: int
    payload: Mapping[str, int | str] = field(default_factory=lambda: MappingProxyType({}))
    model_sha256: str | None = None
    base_sha256: str | None = None
    nulls_sha256: tuple[str, ...] = ()

    def with_files(
        self, *, model_sha256: str, base_sha256: str | None, nulls_sha256: tuple[str, ...] = ()
    ) -> "SchemeInfo":
        """Add the hashes of the marked model's file, of the base and of the null models."""
        return replace(
            self, model_sha256=model_sha256, base_sha256=base_sha256, nulls_sha256=tuple(sorted(nulls_sha256))
        )

    def pictures(self) -> InputSpec:
        """Return what the network takes, where it is pictures.

        Raises:
            WatermarkError: `mismatch`; it takes texts.
        """
        if isinstance(self.input, TextSpec):
            raise WatermarkError("mismatch", f"scheme {self.scheme!r} is for pictures; the network takes texts")
        return self.input


def encode_scheme_info(info: SchemeInfo) -> str:
    """Encode canonically.

    Raises:
        ValueError: the hash of the marked model is not set; only a saved model has evidence.
    """
    if info.model_sha256 is None:
        raise ValueError("the marked model has no hash yet: save it and use SchemeInfo.with_files")
    return canonical_json(
        {
            "scheme": info.scheme,
            "architecture": {"name": info.architecture.name, "arguments": dict(info.architecture.arguments)},
            "classes": info.classes,
            "payload": dict(info.payload),
            "model_sha256": info.model_sha256,
            "base_sha256": info.base_sha256,
            "nulls_sha256": list(info.nulls_sha256),
            **_spelt_input(info.input),
        }
    )


def decode_scheme_info(text: str, *, builder: Callable[[], nn.Module] | None = None) -> SchemeInfo:
    """Decode and check every field but those under `payload`, which the scheme checks.

    Args:
        text: at most 64 KiB.
        builder: makes the network where the info says that it is its owner's own; without it, that is refused.

    Raises:
        WatermarkError: `malformed`, `too_large` or `unknown_architecture`, naming the field.
    """
    if len(text) > INFO_BYTES_MAX:
        raise WatermarkError("too_large", f"info has {len(text)} bytes, the limit is {INFO_BYTES_MAX}")
    fields = object_of(parse_canonical_json(text), "info", _KEYS)
    architecture = architecture_of(fields["architecture"], builder)
    return SchemeInfo(
        scheme=text_of(fields["scheme"], "scheme"),
        architecture=architecture,
        input=_input(fields, architecture),
        classes=integer_of(fields["classes"], "classes", 1, CLASSES_MAX),
        payload=MappingProxyType(_payload(fields["payload"])),
        model_sha256=sha256_of(fields["model_sha256"], "model_sha256"),
        base_sha256=None if fields["base_sha256"] is None else sha256_of(fields["base_sha256"], "base_sha256"),
        nulls_sha256=_nulls(fields["nulls_sha256"]),
    )


def _spelt_input(spec: Spec) -> dict[str, Any]:
    if isinstance(spec, TextSpec):
        size = {"length": spec.length, "vocabulary": spec.vocabulary, "words_sha256": spec.words_sha256}
        return {"input": size, "normalisation": None}
    return {
        "input": {"channels": spec.channels, "height": spec.height, "width": spec.width},
        "normalisation": {"mean": list(spec.normalisation.mean), "std": list(spec.normalisation.std)},
    }


def _input(fields: Mapping[str, Any], architecture: Architecture) -> Spec:
    vocabulary = vocabulary_of(architecture)
    if isinstance(architecture, OwnArchitecture) and fields["normalisation"] is None:  # only its code knows
        size = fields["input"]
        vocabulary = integer_of(
            size.get("vocabulary") if isinstance(size, dict) else None, "input.vocabulary", 1, 1 << 31
        )
    if vocabulary is None:
        return pictures_of(fields["input"], fields["normalisation"])
    return texts_of(fields["input"], fields["normalisation"], vocabulary)


def _payload(value: object) -> dict[str, int | str]:
    if not isinstance(value, dict) or not all(type(it) is int or isinstance(it, str) for it in value.values()):
        raise malformed("payload", "an object of integers and text")
    return value


def _nulls(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > NULLS_MAX:
        raise malformed("nulls_sha256", f"a list of at most {NULLS_MAX} hashes")
    hashes = tuple(sha256_of(it, "nulls_sha256") for it in value)
    if hashes != tuple(sorted(set(hashes))):
        raise malformed("nulls_sha256", "sorted, each hash once")
    return hashes
