"""Embedding a watermark: one call for every scheme.

Source: DESIGN 6.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

from torch import nn

from wm.architectures import Architecture
from wm.data import Dataset
from wm.errors import WatermarkError
from wm.head import Head
from wm.info import Info
from wm.info_fields import check_pictures
from wm.progress import ProgressCallback, silent
from wm.savepoint import Savepoint
from wm.scenes import Scenes
from wm.schemes import mtlsign
from wm.schemes.catalogue import scheme_of
from wm.schemes.info import SchemeInfo
from wm.schemes.mtlsign import EmbedSettings
from wm.schemes.scheme import Payload
from wm.triggers import InputSpec, TextSpec


@dataclass(frozen=True, slots=True)
class Embedding:
    """What an embedding of MTLSign gives its owner.

    Attributes:
        model: the marked model, in evaluation mode.
        head: c_WM; secret until a claim.
        info: how the head connects, still without the hashes of files.
        report: JSON-able: seconds, accuracies, curves, and the history of losses and counts.
    """

    model: nn.Module
    head: Head
    info: Info
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SchemeEmbedding:
    """What an embedding of another scheme gives its owner.

    Attributes:
        model: the marked model, in evaluation mode.
        payload: for the evidence file; secret until a claim.
        info: which network it is and what it takes, still without the hashes of files.
        report: JSON-able: seconds, accuracies, counts, and the history of the embedding.
    """

    model: nn.Module
    payload: Payload
    info: SchemeInfo
    report: dict[str, Any]


@overload
def embed(
    model: nn.Module,
    data: Dataset,
    watermark_key: bytes,
    *,
    architecture: Architecture,
    scheme: Literal["mtlsign"] = "mtlsign",
    settings: EmbedSettings | None = None,
    negatives: Sequence[nn.Module] = (),
    seed: int,
    savepoint: Savepoint | Path | str | None = None,
    progress: ProgressCallback = silent,
) -> Embedding: ...


@overload
def embed(
    model: nn.Module,
    data: Dataset,
    watermark_key: bytes,
    *,
    architecture: Architecture,
    scheme: str,
    settings: Any = None,  # noqa: ANN401 (each scheme has its own)
    negatives: Sequence[nn.Module] = (),
    seed: int,
    savepoint: Savepoint | Path | str | None = None,
    progress: ProgressCallback = silent,
) -> Embedding | SchemeEmbedding: ...


def embed(  # noqa: PLR0913 (the public face)
    model: nn.Module,
    data: Dataset,
    watermark_key: bytes,
    *,
    architecture: Architecture,
    scheme: str = mtlsign.NAME,
    settings: Any = None,
    negatives: Sequence[nn.Module] = (),
    seed: int,
    savepoint: Savepoint | Path | str | None = None,
    progress: ProgressCallback = silent,
) -> Embedding | SchemeEmbedding:
    """Embed a watermark into a copy of a trained model.

    Args:
        model: trained on the data; left untouched. Embedding runs on its device.
        data: the primary task.
        watermark_key: 32 bytes.
        architecture: what the model was built from.
        scheme: its name, one of `wm.schemes.catalogue.NAMES`.
        settings: the scheme's recipe, its own class of settings; by default the measured one of MTLSign, with or
            without negatives, and of the others their paper's.
        negatives: networks that must answer by chance, such as the public base that the model was fine-tuned from; of
            the architecture in front of the last tap, on the model's device, left untouched. For MTLSign alone.
        seed: with one seed and one thread count the result is bit-identical on one machine.
        savepoint: a file in which the state is kept, once a minute or as a `Savepoint` says, so that the same call goes
            on from there after a kill, to the same result. It is as secret as the head. It stays when the embedding is
            done: remove it when the result is saved. For MTLSign alone.
        progress: called after every step.

    Returns:
        The marked model, what the evidence file needs, and a report.

    Raises:
        WatermarkError: `unknown_scheme`, or `unknown_architecture` for a tap that does not exist; `malformed` for a
            damaged savepoint, `mismatch` for one of another model, data set, key, recipe or seed, which is named.
        ValueError: the key's length, or negatives or a savepoint for a scheme that has none.
        OSError: the savepoint cannot be read or written.
    """
    if scheme != mtlsign.NAME:
        found = scheme_of(scheme)
        if negatives or savepoint is not None:
            raise ValueError(f"scheme {scheme!r} takes neither negatives nor a savepoint")
        if found.class_triggers is not None and (isinstance(data.input, TextSpec) or isinstance(data.train, Scenes)):
            raise WatermarkError(
                "mismatch", f"scheme {scheme!r} is for classifiers of pictures; {data.name} is not that"
            )
        if isinstance(data.input, InputSpec):
            check_pictures(data.input)
        recipe = found.settings() if settings is None else settings
        made = found.embed(model, data, watermark_key, settings=recipe, seed=seed, progress=progress)
        info = SchemeInfo(
            scheme=scheme,
            architecture=architecture,
            input=data.input,
            classes=data.classes,
            payload=made.payload.fields(),
        )
        return SchemeEmbedding(made.model, made.payload, info, made.report)
    marked = mtlsign.embed(
        model,
        data,
        watermark_key,
        architecture=architecture,
        settings=settings or EmbedSettings.usual(data.train, has_base=bool(negatives)),
        negatives=negatives,
        seed=seed,
        savepoint=Savepoint(savepoint) if isinstance(savepoint, Path | str) else savepoint,
        progress=progress,
    )
    return Embedding(marked.model, marked.head, marked.info, marked.report)
