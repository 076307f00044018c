"""`info`: how a head connects to a backbone, as canonical JSON that every node reads the same way.

Its hash is published before the model is released, so one meaning must have one spelling: sorted keys, no
spaces, ASCII, and no floats (decimals are strings). Decoding encodes again and compares. A key that is missing,
unknown, of another type or out of range is an error that names it.

Source: DESIGN 4.3; Li et al. 2022, section 3.3 ("info explains how c_WM connects to the backbone").
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from wm.architectures import Architecture, OwnArchitecture, vocabulary_of
from wm.backbone import Tap
from wm.errors import WatermarkError
from wm.head import FAMILY
from wm.info_fields import (
    DECIMAL,
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
from wm.triggers import PROBES, Spec, TextSpec, qr, words
from wm.triggers.prg import COUNT_MAX

TAPS_MAX = 16
TRIGGERS_LEAST = 100
POOLING_MAX = 64  # cells per side
PROBES_LEAST = 2  # of fewer there is no correlation
PROBING_POOLING_MAX = 2  # cells per side; probes tell channels apart better than cells do

_KEYS = frozenset(
    {
        "architecture",
        "base_sha256",
        "gamma",
        "head",
        "input",
        "model_sha256",
        "normalisation",
        "pooling",
        "reference",
        "scheme",
        "taps",
        "trigger_encoder",
        "triggers",
    }
)
_MODULE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probing:
    """How the reference of an alignment was read.

    Attributes:
        probes: how many public ones.
        pooling: into how many cells per side.
        centred: whether the reference holds the mean answer as well, to which a suspect's is moved.
    """

    probes: int
    pooling: int
    centred: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """Everything but the head's tensors that a node needs to rebuild the watermark branch."""

    scheme: str
    architecture: Architecture
    taps: tuple[Tap, ...]
    pooling: int
    hidden: int
    triggers: int
    gamma: str
    input: Spec
    model_sha256: str | None = None
    base_sha256: str | None = None
    reference: Probing | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """The taps' module paths."""
        return tuple(tap.module for tap in self.taps)

    def with_files(self, *, model_sha256: str, base_sha256: str | None) -> "Info":
        """Add the hashes of the marked model's file and of the base it was fine-tuned from, if any."""
        return replace(self, model_sha256=model_sha256, base_sha256=base_sha256)


def info_as_dict(info: Info) -> dict[str, Any]:
    """Spell an `Info` as JSON-able values."""
    reference = info.reference
    return {
        "scheme": info.scheme,
        "architecture": {"name": info.architecture.name, "arguments": dict(info.architecture.arguments)},
        "taps": [{"module": tap.module, "shape": [tap.channels, tap.height, tap.width]} for tap in info.taps],
        "pooling": info.pooling,
        "head": {"family": FAMILY, "hidden": info.hidden},
        "triggers": info.triggers,
        "gamma": info.gamma,
        "model_sha256": info.model_sha256,
        "base_sha256": info.base_sha256,
        "reference": _spelt_probing(reference) if reference else None,
        **_spelt_input(info.input),
    }


def _spelt_probing(reference: Probing) -> dict[str, Any]:
    """Spell how a reference was read; one that is not centred as it was before there were any that are."""
    centred = {"centred": True} if reference.centred else {}
    return {"probes": reference.probes, "pooling": reference.pooling, **centred}


def _spelt_input(spec: Spec) -> dict[str, Any]:
    """Spell what the network takes, and how integers become it; texts have no normalisation."""
    if isinstance(spec, TextSpec):
        size = {"length": spec.length, "vocabulary": spec.vocabulary, "words_sha256": spec.words_sha256}
        return {"trigger_encoder": words.ENCODER, "input": size, "normalisation": None}
    return {
        "trigger_encoder": qr.ENCODER,
        "input": {"channels": spec.channels, "height": spec.height, "width": spec.width},
        "normalisation": {"mean": list(spec.normalisation.mean), "std": list(spec.normalisation.std)},
    }


def encode_info(info: Info) -> str:
    """Encode canonically.

    Raises:
        ValueError: the hash of the marked model is not set; only a saved model has evidence.
    """
    if info.model_sha256 is None:
        raise ValueError("the marked model has no hash yet: save it and use Info.with_files")
    return canonical_json(info_as_dict(info))


def decode_info(text: str, *, builder: Callable[[], nn.Module] | None = None) -> Info:
    """Decode and check every field.

    Args:
        text: at most 64 KiB.
        builder: makes the network where the info says that it is its owner's own; without it, that is refused.

    Returns:
        The `Info`, with `model_sha256` set.

    Raises:
        WatermarkError: `malformed`, `too_large`, `unknown_architecture` or `unknown_scheme`, naming the field.
    """
    if len(text) > INFO_BYTES_MAX:
        raise WatermarkError("too_large", f"info has {len(text)} bytes, the limit is {INFO_BYTES_MAX}")
    fields = object_of(parse_canonical_json(text), "info", _KEYS)
    head = object_of(fields["head"], "head", {"family", "hidden"})
    _known(head["family"], FAMILY, "head.family")
    architecture = architecture_of(fields["architecture"], builder)
    return Info(
        scheme=text_of(fields["scheme"], "scheme"),
        architecture=architecture,
        taps=_taps(fields["taps"]),
        pooling=integer_of(fields["pooling"], "pooling", 1, POOLING_MAX),
        hidden=integer_of(head["hidden"], "head.hidden", 1, 1 << 16),
        triggers=integer_of(fields["triggers"], "triggers", TRIGGERS_LEAST, COUNT_MAX),
        gamma=_gamma(fields["gamma"]),
        input=_input(fields, architecture),
        model_sha256=sha256_of(fields["model_sha256"], "model_sha256"),
        base_sha256=None if fields["base_sha256"] is None else sha256_of(fields["base_sha256"], "base_sha256"),
        reference=None if fields["reference"] is None else _probing(fields["reference"]),
    )


def is_gamma(text: str) -> bool:
    """Tell whether text is a decimal above 1/2 and at most 1."""
    return bool(DECIMAL.fullmatch(text)) and 0.5 < float(text) <= 1


def _known(value: object, known: str, name: str) -> None:
    if text_of(value, name) != known:
        raise _unknown(name, value, known)


def _unknown(name: str, value: object, known: str) -> WatermarkError:
    return WatermarkError("unknown_scheme", f"info field {name!r} is {value!r}; this version knows {known!r}")


def _gamma(value: object) -> str:
    if not isinstance(value, str) or not is_gamma(value):
        raise malformed("gamma", "a decimal string above 0.5 and at most 1")
    return value


def _taps(value: object) -> tuple[Tap, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= TAPS_MAX:
        raise malformed("taps", f"a list of 1 to {TAPS_MAX} taps")
    taps = tuple(_tap(item) for item in value)
    if len({tap.module for tap in taps}) != len(taps):
        raise malformed("taps", "taps of different modules")
    return taps


def _tap(value: object) -> Tap:
    fields = object_of(value, "taps", {"module", "shape"})
    module, shape = fields["module"], fields["shape"]
    if not isinstance(module, str) or len(module) > 128 or not _MODULE.fullmatch(module):
        raise malformed("taps.module", "a module path such as layer1.0.conv1")
    if not isinstance(shape, list) or len(shape) != 3:
        raise malformed("taps.shape", "channels, height and width")
    channels, height, width = (integer_of(side, "taps.shape", 1, 1 << 16) for side in shape)
    return Tap(module, channels, height, width)


def _probing(value: object) -> Probing:
    is_centred = isinstance(value, dict) and "centred" in value
    fields = object_of(value, "reference", {"probes", "pooling"} | ({"centred"} if is_centred else set()))
    if is_centred and fields["centred"] is not True:
        raise malformed("reference.centred", "true, or left out")
    return Probing(
        probes=integer_of(fields["probes"], "reference.probes", PROBES_LEAST, PROBES),
        pooling=integer_of(fields["pooling"], "reference.pooling", 1, PROBING_POOLING_MAX),
        centred=is_centred,
    )


def _input(fields: Mapping[str, Any], architecture: Architecture) -> Spec:
    """Read what the network takes; which of the two it is the trigger encoder says, and the architecture must agree."""
    encoder, vocabulary = text_of(fields["trigger_encoder"], "trigger_encoder"), vocabulary_of(architecture)
    # Of an own network only its code knows; a wrong statement of its owner's fails when it runs.
    if isinstance(architecture, OwnArchitecture):
        size = fields["input"]
        stated = size.get("vocabulary") if encoder == words.ENCODER and isinstance(size, dict) else None
        vocabulary = None if stated is None else integer_of(stated, "input.vocabulary", 1, 1 << 31)
    if encoder not in {qr.ENCODER, words.ENCODER}:
        raise _unknown("trigger_encoder", encoder, f"{qr.ENCODER}, {words.ENCODER}")
    if (encoder == words.ENCODER) != (vocabulary is not None):
        raise WatermarkError(
            "mismatch", f"info field 'trigger_encoder' is {encoder!r}, not what {architecture.name} reads"
        )
    if vocabulary is None:
        return pictures_of(fields["input"], fields["normalisation"])
    return texts_of(fields["input"], fields["normalisation"], vocabulary)
