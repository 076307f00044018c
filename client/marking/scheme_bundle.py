"""Making a bundle of a scheme without a branch: train plainly, embed, measure, and write it all at once.

What a bundle of MTLSign is made of says `client.marking.embedding`. Here the evidence holds the scheme's payload
instead of a head, and a scheme whose chance is measured on null models gets some: models of the same training with
other seeds, which go with a claim as a declared base does.
"""

import json
import math
import secrets
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

import wm
from client.bundle import Bundle
from client.errors import InvalidError
from client.files import write_atomic
from client.keystore import WatermarkKeyFile, save_watermark_key
from client.marking.models import (
    Show,
    architecture_of,
    load_data,
    reporting,
    saved_weights,
    told_of,
    trained_model,
    watermark_errors,
)
from client.marking.plots import plot_scheme_report
from client.marking.task import Task
from registry.binomial import MILLION, p_value
from registry.policy import Thresholds
from registry.verdict import Statistic, least_above_chance
from wm.data import Dataset
from wm.schemes.catalogue import Scheme, scheme_of
from wm.schemes.evidence import SchemeEvidence, save_scheme_evidence
from wm.schemes.measuring import chance_of, is_null, matches_in

SALT_BYTES = 32
NULLS = 4  # models without the mark, where the chance is measured
NULL_SEEDS, SEED_MAX = 1000, 2**31  # their seeds follow the task's at a distance


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeMarked:
    """A model before and after the embedding, and the null models."""

    clean: nn.Module
    embedding: wm.SchemeEmbedding
    nulls: tuple[nn.Module, ...]
    report: dict[str, Any]


def settings_of(scheme: str, *, quick: bool, single_precision: bool) -> Any:  # noqa: ANN401 (each scheme has its own)
    """The scheme's recipe.

    Args:
        scheme: its name.
        quick: whether to take the recipe for a CPU instead of the paper's.
        single_precision: of fragile, whether triggers must survive no TF32.
    """
    found = scheme_of(scheme)
    settings = found.quick() if quick else found.settings()
    return replace(settings, tolerates_tf32=False) if single_precision else settings


def embed_scheme(
    task: Task,
    key_file: WatermarkKeyFile,
    *,
    scheme: str,
    settings: Any,  # noqa: ANN401 (each scheme has its own)
    show: Show,
) -> SchemeMarked:
    """Train the model plainly, and embed into a copy of it.

    Args:
        task: what to train, on what.
        key_file: the watermark key.
        scheme: the watermark scheme's name.
        settings: its recipe.
        show: is told how far it is.

    Raises:
        InputError, InvalidError: the task cannot be done as it is put.
    """
    found, watermark_key = scheme_of(scheme), key_file.binding.watermark_key
    data = load_data(task)
    architecture = architecture_of(task, data)
    clean = trained_model(task, architecture, data, show)
    with watermark_errors():
        embedding = wm.embed(
            clean,
            data,
            watermark_key,
            architecture=architecture,
            scheme=scheme,
            settings=settings,
            seed=task.seed,
            progress=reporting(show),
        )
    if not isinstance(embedding, wm.SchemeEmbedding):
        raise TypeError(f"{scheme} has a branch; client.marking.embedding embeds it")
    nulls = _trained_nulls(task, architecture, data, show) if found.statistic == "calibrated" else ()
    report = {
        "scheme": scheme,
        "settings": {name: str(value) for name, value in asdict(settings).items()},
        **told_of(task, data, clean, embedding.model),
        **_counted(found, embedding, clean, nulls, watermark_key),
        "weight_change": _weight_change(clean, embedding.model),
        "further": [],
        "embedding": embedding.report,
    }
    return SchemeMarked(clean=clean, embedding=embedding, nulls=nulls, report=report)


def _trained_nulls(task: Task, architecture: wm.Architecture, data: Dataset, show: Show) -> tuple[nn.Module, ...]:
    """Models that anybody might have trained for the task: from scratch, each with a seed of its own."""
    seeds = [(task.seed + NULL_SEEDS + number) % SEED_MAX for number in range(NULLS)]
    scratch = [replace(task, weights=None, base=None, seed=seed) for seed in seeds]
    return tuple(trained_model(each, architecture, data, show) for each in scratch)


def _counted(
    scheme: Scheme,
    embedding: wm.SchemeEmbedding,
    clean: nn.Module,
    nulls: tuple[nn.Module, ...],
    watermark_key: bytes,
) -> dict[str, Any]:
    payload = embedding.payload
    evidence = SchemeEvidence(embedding.info, payload, bytes(SALT_BYTES))

    def matched(model: nn.Module) -> int:
        return int(matches_in(model, evidence, watermark_key).sum())

    by_null = [matched(null) for null in nulls if is_null(null, evidence, watermark_key)]
    chance = chance_of(payload, by_null, classes=embedding.info.classes)
    counts = {"clean": matched(clean), "marked": matched(embedding.model)}
    has_chance, chance_ppm = Statistic(scheme.statistic).has_chance, math.ceil(chance * MILLION)
    return {
        "matched": counts,
        "nulls_matched": by_null,
        "triggers": payload.total,
        "statistic": scheme.statistic,
        "chance": float(chance),
        "p_value": p_value(counts["marked"], payload.total, chance_ppm) if has_chance else None,
        "least_verified": least_above_chance(payload.total, chance_ppm, Thresholds()) if has_chance else payload.total,
    }


@torch.no_grad()
def _weight_change(before: nn.Module, after: nn.Module) -> float:
    """‖W - W0‖ / ‖W0‖ over all parameters."""
    pairs = [(a.detach().cpu(), b.detach().cpu()) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    moved = sum(float((b - a).square().sum()) for a, b in pairs)
    return math.sqrt(moved / max(sum(float(a.square().sum()) for a, _ in pairs), 1e-30))


def write_scheme_bundle(
    bundle: Bundle, marked: SchemeMarked, key_file: WatermarkKeyFile, *, base_sha256: str | None, keep_clean: bool
) -> dict[str, Any]:
    """Write a bundle into an empty directory; return its report.

    Args:
        bundle: in a staged directory.
        marked: what to write.
        key_file: the watermark key that was embedded.
        base_sha256: hash of the public weights that the training began with, if any; nodes will ask for the file.
        keep_clean: whether to write the model before the embedding as well.
    """
    embedding = marked.embedding
    files = {"model_sha256": saved_weights(embedding.model, bundle.model), "base_sha256": base_sha256}
    nulls_sha256 = tuple(_written_null(bundle, null) for null in marked.nulls)
    if len(set(nulls_sha256)) < len(nulls_sha256):
        raise InvalidError("two null models are the same; nothing is kept", code="malformed")
    info = embedding.info.with_files(**files, nulls_sha256=nulls_sha256)  # type: ignore[arg-type]
    evidence = SchemeEvidence(info, embedding.payload, secrets.token_bytes(SALT_BYTES))
    evidence_sha256 = save_scheme_evidence(bundle.evidence, evidence)
    bundle.evidence.chmod(0o600)  # secret until a claim
    save_watermark_key(bundle.watermark_key, key_file)
    if keep_clean:
        saved_weights(marked.clean, bundle.clean)
    report = marked.report | files | {"nulls_sha256": list(info.nulls_sha256), "evidence_sha256": evidence_sha256}
    write_atomic(bundle.report, (json.dumps(report, indent=1) + "\n").encode())
    plot_scheme_report(report, bundle.plot)
    return report


def _written_null(bundle: Bundle, null: nn.Module) -> str:
    directory = bundle.null("").parent
    directory.mkdir(exist_ok=True)
    partial = directory / "partial.safetensors"
    sha256 = saved_weights(null, partial)
    partial.replace(bundle.null(sha256))
    return sha256
