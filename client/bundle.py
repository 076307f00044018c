"""The directory in which an owner keeps one watermarked model and everything that proves it his.

::

    model.safetensors        the marked model, which may be released after the publication
    clean.safetensors        the model before the embedding, if it was kept
    base.safetensors         the public weights that the training began with, if any; a claim uploads them
    words.txt                of a model for texts: its word list, to be released with it
    evidence.safetensors     head, salt and info; secret until a claim
    watermark_key.json       nonce and signature; secret until a claim
    report.json, report.png  how the embedding went
    publication.bin          the exact message that was sent, so that sending it again is no second publication
    publication-<hash>.bin   an earlier one, which grew too old before it was recorded
    receipt.tlog-proof       the proof that it is recorded
    claims/<hash>-<place>.bin  the exact claim on the model with that hash, at that place
    certificate.json         the verdict
    further/<number>/        evidence, watermark key, claims and certificate of each further watermark, from 1 on
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from client.errors import InputError, InvalidError
from client.files import read_limited, sha256_file
from client.keystore import WatermarkKeyFile, load_watermark_key
from registry.envelope import ENVELOPE_BYTES_MAX, SignedMessage, unseal
from registry.errors import MalformedError, RefusedError
from registry.evidence import EVIDENCE_BYTES_MAX, EvidenceFile, parse_evidence
from registry.messages import Publication

_FURTHER = "further"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Paths of the files in an owner's directory, and the reading of those that a publication needs."""

    directory: Path

    @property
    def model(self) -> Path:
        """The marked model."""
        return self.directory / "model.safetensors"

    @property
    def clean(self) -> Path:
        """The model before the embedding."""
        return self.directory / "clean.safetensors"

    @property
    def base(self) -> Path:
        """The public weights that the training began with."""
        return self.directory / "base.safetensors"

    @property
    def words(self) -> Path:
        """The word list of a model for texts."""
        return self.directory / "words.txt"

    @property
    def evidence(self) -> Path:
        """Head, salt and info."""
        return self.directory / "evidence.safetensors"

    @property
    def watermark_key(self) -> Path:
        """Nonce and signature."""
        return self.directory / "watermark_key.json"

    def null(self, sha256: str) -> Path:
        """A model that was trained for the same task without the mark, named by its file's SHA-256, hexadecimal."""
        return self.directory / "nulls" / f"{sha256}.safetensors"

    @property
    def report(self) -> Path:
        """How the embedding went, for programs."""
        return self.directory / "report.json"

    @property
    def plot(self) -> Path:
        """How the embedding went, for people."""
        return self.directory / "report.png"

    @property
    def publication(self) -> Path:
        """The publication's envelope."""
        return self.directory / "publication.bin"

    @property
    def receipt(self) -> Path:
        """The publication's receipt."""
        return self.directory / "receipt.tlog-proof"

    @property
    def certificate(self) -> Path:
        """The first claim's certificate."""
        return self.directory / "certificate.json"

    def part(self, number: int) -> "Bundle":
        """Where evidence, key, claims and certificate of one watermark are: 0 is the first, which is here."""
        return self if number == 0 else Bundle(self.directory / _FURTHER / str(number))

    def parts(self) -> "list[Bundle]":
        """All watermarks of the model, the first one first."""
        parts = [self]
        while self.part(len(parts)).directory.is_dir():
            parts.append(self.part(len(parts)))
        return parts

    def claim(self, model_sha256: bytes, pointer: str) -> Path:
        """The envelope of the claim on a model that is at one place; claims on other places are other messages."""
        place = hashlib.sha256(pointer.encode()).hexdigest()[:16]
        return self.directory / "claims" / f"{model_sha256.hex()}-{place}.bin"

    def load_evidence(self) -> EvidenceFile:
        """Read the evidence file.

        Raises:
            InvalidError: naming the file and what is wrong with it.
            OSError: it cannot be read.
        """
        try:
            return parse_evidence(read_limited(self.evidence, EVIDENCE_BYTES_MAX))
        except MalformedError as error:
            raise InvalidError(f"{self.evidence}: {error}", code=error.code) from error

    def load_watermark_key(self) -> WatermarkKeyFile:
        """Read the watermark key file; see `client.keystore`."""
        return load_watermark_key(self.watermark_key)

    def load_publication(self, *, origin: str) -> SignedMessage:
        """Read the publication that was saved before it was sent.

        Raises:
            InputError: there is none: the model was not published from this directory.
            InvalidError: the file is damaged, or of another ledger.
            OSError: it cannot be read.
        """
        if not self.publication.exists():
            raise InputError(f"{self.publication}: no such file; run first: wmreg publish {self.directory}")
        try:
            signed = unseal(read_limited(self.publication, ENVELOPE_BYTES_MAX), origin=origin)
        except (MalformedError, RefusedError) as error:
            message = f"{self.publication}: not a publication in the ledger {origin}: {error}"
            raise InvalidError(message, code=error.code) from error
        if not isinstance(signed.message, Publication):
            raise InvalidError(f"{self.publication}: not a publication", code="malformed")
        return signed


def open_bundle(directory: Path) -> Bundle:
    """The bundle in a directory that `wmreg embed` made.

    Raises:
        InputError: a file that every bundle has is missing.
    """
    bundle = Bundle(directory)
    for path in (bundle.evidence, bundle.watermark_key):
        if not path.is_file():
            raise InputError(f"{path}: no such file; is {directory} the --out directory of wmreg embed?")
    return bundle


def declared_models(bundle: Bundle, evidence: EvidenceFile) -> tuple[Path | None, tuple[Path, ...]]:
    """The files of the models that the evidence declares.

    Args:
        bundle: of one watermark; the models are with the first.
        evidence: the bundle's.

    Returns:
        The base, None when it declares none, and the null models in its order.

    Raises:
        InvalidError: code base_missing, the bundle has no such file: nodes could verify no claim.
        OSError: it cannot be read.
    """
    try:
        declared = evidence.declared
    except MalformedError as error:
        raise InvalidError(f"{bundle.evidence}: {error}", code=error.code) from error
    directory = bundle.directory.resolve()
    whole = Bundle(directory.parents[1] if directory.parent.name == _FURTHER else bundle.directory)
    base = None if declared.base is None else _holding(whole.base, declared.base)
    return base, tuple(_holding(whole.null(sha256.hex()), sha256) for sha256 in declared.nulls)


def _holding(path: Path, sha256: bytes) -> Path:
    if not path.is_file() or sha256_file(path)[0] != sha256:
        message = f"{path}: not the model that the evidence declares; put the file with SHA-256 {sha256.hex()} there"
        raise InvalidError(message, code="base_missing")
    return path


def stated_model_sha256(evidence: EvidenceFile) -> bytes | None:
    """Hash of the marked model, as the evidence's info states it; None when it states none."""
    digits = cast("dict[str, object]", json.loads(evidence.info)).get("model_sha256")
    try:
        return bytes.fromhex(digits) if isinstance(digits, str) else None
    except ValueError:
        return None
