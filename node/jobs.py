"""What the verifier is asked about a claim: the same by every node, and by an auditor who does it again."""

import hashlib
from typing import cast

from node.claim_files import ClaimFiles
from node.verifier.protocol import Job
from registry import merkle
from registry.claims import ClaimState
from registry.messages import Publication


def job_of(state: ClaimState, entry: bytes, files: ClaimFiles) -> Job:
    """The job of a claim; of one on an endpoint the first job, which wants the pictures to ask about.

    Args:
        state: the claim and the policy that judges it.
        entry: the claim's entry in the log.
        files: what was fetched for it.
    """
    claim = state.message
    publication = cast("Publication", state.publication.signed.message)
    policy = state.policy
    return Job(
        model_path=str(files.model.absolute()) if files.model else "",
        model_sha256=claim.model_sha256,
        model_bytes_max=policy.model_bytes_max,
        evidence_path=str(files.evidence.absolute()),
        evidence_sha256=claim.evidence_sha256,
        evidence_bytes_max=policy.evidence_bytes_max,
        base_path=str(files.base.absolute()) if files.base else "",
        null_paths=tuple(str(null.absolute()) for null in files.nulls),
        scheme=publication.scheme,
        head_commitment=state.committed.head,
        info_commitment=state.committed.info,
        watermark_key=claim.binding.watermark_key,
        control_seed=control_seed(entry, state.claim.signed.hash),
        permutations=policy.thresholds.permutations_min,
        controls=policy.thresholds.controls_min,
        gamma_permille=policy.thresholds.gamma_permille,
        refute_permille=policy.thresholds.refute_permille,
        control_permille=policy.thresholds.control_permille,
    )


def control_seed(entry: bytes, claim: bytes) -> bytes:
    """Where the controls of a claim come from: the claim's entry, with the time at which a node recorded it.

    All nodes use the same controls, and an auditor can draw them again; the owner could not know them when he
    published.

    Source: SCHEMES 4.5, "seeds = H(log entry hash ‖ OV hash ‖ j)"; the scheme adds j.
    """
    return hashlib.sha256(b"wmreg/v1/control-seed\0" + merkle.leaf_hash(entry) + claim).digest()
