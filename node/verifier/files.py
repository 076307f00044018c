"""What is known of a claim from its files alone: whether they are the right ones, before anything is measured.

Hash and size come first, then what the owner committed to, then the models that the evidence declares.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

from node.verifier.protocol import EXIT_TROUBLE, Answer, Job, unmeasured
from registry.counted import ACCUSES_ITSELF, accuses_itself
from registry.evidence import EvidenceFile, parse_evidence
from registry.verdict import Outcome


class Settled(Exception):  # noqa: N818 -- not an error: the answer is known early
    """The answer is known before anything is measured."""

    def __init__(self, outcome: Outcome, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.answer = unmeasured(outcome, reason, detail)


def checked_evidence(job: Job) -> EvidenceFile:
    """Check a job's files and read its evidence.

    Raises:
        Settled: a file is another one, or not what was published.
        MalformedError: the evidence, or the info in it.
        SystemExit: a file that was fetched is gone, which says nothing of the claim.
    """
    if job.model_path:
        _check_file(Path(job.model_path), job.model_sha256, job.model_bytes_max)
    _check_file(Path(job.evidence_path), job.evidence_sha256, job.evidence_bytes_max)
    evidence = parse_evidence(Path(job.evidence_path).read_bytes())
    _check_commitments(evidence, job)
    _check_declared(evidence, job)
    return evidence


def unless_contradictory(found: Answer, evidence: EvidenceFile, job: Job) -> Answer:
    """Refuse evidence of integrity that names this very file and has triggers that it does not answer."""
    measurement = found.measurement
    if measurement is None or not job.model_path or not accuses_itself(measurement, evidence, job.model_sha256):
        return found
    return unmeasured(Outcome.UNVERIFIABLE, "malformed", ACCUSES_ITSELF)


def least_matched(evidence: EvidenceFile, gamma_permille: int) -> int:
    """The count below which the rules ask for no controls; 0 when the info's number of triggers is nonsense."""
    triggers = json.loads(evidence.info).get("triggers")
    return -(-gamma_permille * triggers // 1000) if isinstance(triggers, int) else 0


def _check_file(path: Path, sha256: bytes, bytes_max: int) -> None:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > bytes_max:
                raise Settled(Outcome.UNVERIFIABLE, "too_large", f"more than {bytes_max} bytes")
            digest = hashlib.file_digest(file, "sha256")
    except OSError as error:  # a fetched file that is gone or closed to this process says nothing of the claim
        sys.stderr.write(f"a fetched file cannot be read: {error}\n")
        raise SystemExit(EXIT_TROUBLE) from error
    if digest.digest() != sha256:
        raise Settled(Outcome.UNVERIFIABLE, "hash_mismatch", f"the file hashes to {digest.hexdigest()}")


def _check_commitments(evidence: EvidenceFile, job: Job) -> None:
    if evidence.head_commitment != job.head_commitment:
        raise Settled(Outcome.REFUTED, "head_mismatch", "the head is not the one that was published")
    if evidence.info_commitment != job.info_commitment:
        raise Settled(Outcome.REFUTED, "info_mismatch", "the info is not the one that was published")
    if evidence.scheme != job.scheme:
        raise Settled(Outcome.REFUTED, "info_mismatch", "the scheme is not the one that was published")


def _check_declared(evidence: EvidenceFile, job: Job) -> None:
    """Check that the job brings the base and the null models that the evidence declares, and none besides."""
    declared = evidence.declared
    if (declared.base is None) != (not job.base_path) or len(declared.nulls) != len(job.null_paths):
        sys.stderr.write("the job does not bring the models that the evidence declares\n")
        raise SystemExit(EXIT_TROUBLE)
    if declared.base is not None:
        _check_file(Path(job.base_path), declared.base, job.model_bytes_max)
    for path, sha256 in zip(job.null_paths, declared.nulls, strict=True):
        _check_file(Path(path), sha256, job.model_bytes_max)
