"""Making a bundle: train or fine-tune, embed the watermark, measure, and write it all at once.

Nothing appears under the bundle's name until every file of it is written; what was interrupted leaves nothing.
"""

import copy
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

import wm
from client.bundle import Bundle
from client.errors import InvalidError
from client.files import write_atomic
from client.keystore import WatermarkKeyFile, save_watermark_key
from client.marking.models import (
    Show,
    architecture_of,
    check_taps,
    load_data,
    loaded_base,
    reporting,
    saved_weights,
    schedule_of,
    told_of,
    trained_model,
    watermark_errors,
)
from client.marking.plots import plot_report
from client.marking.savepoints import Savepoints
from client.marking.task import Task
from registry.binomial import p_value
from registry.policy import Thresholds
from wm.branch import count_matched
from wm.data import Dataset
from wm.datasets.word_list import WordList
from wm.evidence import SALT_BYTES, EvidenceFile, save_evidence, with_reference
from wm.scenes import Scenes
from wm.schemes import mtlsign
from wm.training import fit

_NEIGHBOURS_SEED, _NEIGHBOURS_SHARE = 7001, 0.5  # apart from the task's seed; of the data


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A model before the embedding, and what embedding each watermark gave, one after the other.

    Attributes:
        clean: before the first.
        embeddings: the last one's model carries all the watermarks.
        words: the word list's file, of a model for texts.
    """

    clean: nn.Module
    embeddings: tuple[wm.Embedding, ...]
    report: dict[str, Any]
    words: bytes | None = None

    @property
    def model(self) -> nn.Module:
        """The marked model."""
        return self.embeddings[-1].model


def embed(
    task: Task,
    key_files: Sequence[WatermarkKeyFile],
    *,
    settings: wm.EmbedSettings | None = None,
    changes: Mapping[str, Any] | None = None,
    savepoints: Savepoints | None = None,
    show: Show,
) -> Marked:
    """Train the model plainly, then embed each watermark of MTLSign into what came before; `wm.embed` works on a copy.

    Args:
        task: what to train, on what.
        key_files: the watermark keys, at least one.
        settings: its recipe; None takes the measured one, in the task's precision.
        changes: settings that are to be other than the recipe's, by name.
        savepoints: from which it goes on, and where it keeps its state.
        show: is told how far it is.

    Raises:
        InputError, InvalidError: the task cannot be done as it is put, or the base could not be kept out of the mark.
    """
    data = load_data(task)
    architecture = architecture_of(task, data)
    changes = changes or {}
    check_taps(architecture, data, changes.get("taps", None if settings is None else settings.taps))
    training = None if savepoints is None else savepoints.training()
    model = clean = trained_model(task, architecture, data, show, savepoint=training)
    base = _base(task, architecture, clean)
    if settings is None:
        settings = replace(wm.EmbedSettings.usual(data.train, has_base=base is not None), precision=task.precision)
    settings = replace(settings, **changes)
    embeddings = []
    for number, key_file in enumerate(key_files):
        with watermark_errors():
            embedding = wm.embed(
                model,
                data,
                key_file.binding.watermark_key,
                architecture=architecture,
                settings=settings,
                negatives=[] if base is None else [base, clean],
                seed=task.seed + number,
                savepoint=None if savepoints is None else savepoints.embedding(number),
                progress=reporting(show),
            )
        embeddings.append(embedding)
        model = embedding.model
    networks = {"clean": clean, "marked": model}
    if base is not None:
        networks |= {"base": base, "neighbour": _neighbour(base, task, data, show)}
    first, *further = (
        _matched(networks, embedding, key_file) for embedding, key_file in zip(embeddings, key_files, strict=True)
    )
    for told in (first, *further):
        _check_base_out(told)
    report = {"scheme": mtlsign.NAME, **told_of(task, data, clean, model), **first, "further": further}
    words = None if data.words is None else str(WordList(data.words)).encode()
    return Marked(clean=clean, embeddings=tuple(embeddings), report=report, words=words)


def _base(task: Task, architecture: wm.Architecture, clean: nn.Module) -> nn.Module | None:
    """The public weights that the task names, where the model before the embedding is."""
    if task.base is None:
        return None
    device = next(clean.parameters()).device
    return loaded_base(task.base, architecture, seed=task.seed).to(device)


def _neighbour(base: nn.Module, task: Task, data: Dataset, show: Show) -> nn.Module:
    """What an honest stranger makes of the base: tuned for the task on half of the data, by a seed of his own.

    The embedding has not seen it, unlike the tuned copies among its negative controls.
    """
    network, schedule = copy.deepcopy(base), schedule_of(task, data)
    if schedule.epochs:
        with watermark_errors():
            fit(
                network,
                data,
                epochs=schedule.epochs,
                lr=schedule.lr,
                seed=(task.seed + _NEIGHBOURS_SEED) % 2**31,
                fraction=_NEIGHBOURS_SHARE,
                precision=task.precision,
                keeps_statistics=isinstance(data.train, Scenes),
                progress=reporting(show),
            )
    return network.eval()


def _check_base_out(told: Mapping[str, Any]) -> None:
    """Check that a base answers by chance, as nodes will, and a stranger's model that comes from it as well.

    Raises:
        InvalidError: code base_passes; nodes would refute every claim. Code neighbour_passes; nodes might convict
            whoever else fine-tuned the base, and it is the owner who would accuse him.
    """
    triggers, thresholds = told["triggers"], Thresholds()
    # Strangers differ: one who is nearer to γ than to the bound of a plain no stands for others beyond it.
    nearly = (thresholds.refute_permille + thresholds.gamma_permille) // 2
    refuted, convicted = "nodes would refute every claim on this mark", "innocents could be convicted"
    for name, who, code, so, most in (
        ("base", "the base itself", "base_passes", refuted, thresholds.control_permille),
        ("neighbour", "a stranger's model that was tuned from the base", "neighbour_passes", convicted, nearly),
    ):
        counts = [told[how].get(name, 0) for how in ("matched", "matched_aligned")]
        matched = max(counts)
        if matched * 1000 > most * triggers:
            how = "" if matched == counts[0] else ", with its channels aligned,"
            message = (
                f"{who}{how} answers {matched} of {triggers} triggers, more than {most / 10:g} %: {so}, and nothing is "
                "kept; embed again with another --seed or more --data"
            )
            raise InvalidError(message, code=code)


def _matched(networks: Mapping[str, nn.Module], embedding: wm.Embedding, key_file: WatermarkKeyFile) -> dict[str, Any]:
    """How one watermark stands in the model before, in the one that carries them all, and in the base.

    Beside a base also with their channels aligned, as nodes read all controls of a suspect whose channels they align.
    """
    head, info, watermark_key = embedding.head, embedding.info, key_file.binding.watermark_key
    matched = {name: count_matched(it, head, info, watermark_key) for name, it in networks.items()}
    matched_aligned = {}
    if "base" in networks:
        evidence = with_reference(EvidenceFile(head, info, bytes(SALT_BYTES)), networks["marked"])
        matched_aligned = {
            name: count_matched(networks[name], head, evidence.info, watermark_key, reference=evidence.reference)
            for name in ("clean", "base", "neighbour")
        }
    return {
        "matched": matched,
        "matched_aligned": matched_aligned,
        "triggers": info.triggers,
        "p_value": p_value(matched["marked"], info.triggers),
        "embedding": embedding.report,
    }


def write_bundle(
    bundle: Bundle, marked: Marked, key_files: Sequence[WatermarkKeyFile], *, base_sha256: str | None, keep_clean: bool
) -> dict[str, Any]:
    """Write a bundle into an empty directory; return its report.

    Args:
        bundle: in a staged directory.
        marked: what to write.
        key_files: the watermark keys that were embedded.
        base_sha256: hash of the public weights that the training began with, if any; nodes will ask for the file.
        keep_clean: whether to write the model before the embedding as well.
    """
    model_sha256 = saved_weights(marked.model, bundle.model)
    files: dict[str, Any] = {"model_sha256": model_sha256, "base_sha256": base_sha256}
    evidence_sha256 = [
        _write_part(bundle.part(number), embedding, marked.model, key_file, files)
        for number, (embedding, key_file) in enumerate(zip(marked.embeddings, key_files, strict=True))
    ]
    if keep_clean:
        saved_weights(marked.clean, bundle.clean)
    if marked.words is not None:
        write_atomic(bundle.words, marked.words)
    report = marked.report | files | {"evidence_sha256": evidence_sha256[0]}
    for told, sha256 in zip(report["further"], evidence_sha256[1:], strict=True):
        told["evidence_sha256"] = sha256
    write_atomic(bundle.report, (json.dumps(report, indent=1) + "\n").encode())
    plot_report(report, bundle.plot)
    return report


def _write_part(
    part: Bundle, embedding: wm.Embedding, released: nn.Module, key_file: WatermarkKeyFile, files: dict[str, Any]
) -> str:
    """Write one watermark's evidence and key; return the hash of the evidence file."""
    part.directory.mkdir(parents=True, exist_ok=True)
    evidence = EvidenceFile(embedding.head, embedding.info.with_files(**files), secrets.token_bytes(SALT_BYTES))
    sha256 = save_evidence(part.evidence, with_reference(evidence, released))
    part.evidence.chmod(0o600)  # secret until a claim: whoever holds the head can train against it
    save_watermark_key(part.watermark_key, key_file)
    return sha256
