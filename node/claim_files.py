"""The files that a claim is verified with: what it points at, and the models that its evidence declares.

A claim on a prediction endpoint has no file of the suspect: there is its URL instead.

Who declares in his evidence that he fine-tuned a base has to make the base's weights available, as a blob named by
their hash. Only then can nodes look whether the head answers on the base as well. So with null models, on which the
chance of a match is measured. What the evidence declares is read
here, from a header of bounded size; everything else in it is the verifier process's business. What may be declared has
a size in all as well: a node keeps the files of a claim together while it works on it.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from node.blobs import BlobStore
from node.download import FetchError
from node.fetch import Fetcher
from registry.claims import ClaimState
from registry.endpoint import endpoint_of
from registry.errors import MalformedError
from registry.evidence import Declared, read_declared
from registry.messages import Claim

DECLARED_MODELS_MAX = 2  # of the policy's largest size: what the base and the null models may have together
_UNUSABLE = frozenset({"too_large"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimFiles:
    """Fetched files.

    Attributes:
        model: the suspect's; None for an endpoint's.
        endpoint: the URL of the suspect; None for a file.
        evidence: what the claim points at.
        base: the declared base's weights; None where none is declared.
        nulls: the declared null models' weights.
        hashes: of all of them.
    """

    model: Path | None
    endpoint: str | None
    evidence: Path
    base: Path | None
    nulls: tuple[Path, ...]
    hashes: tuple[bytes, ...]


async def fetch_files(fetcher: Fetcher, state: ClaimState, held: ExitStack) -> ClaimFiles:
    """Fetch what a claim is verified with.

    Args:
        fetcher: gets and keeps the files.
        state: the claim.
        held: the files stay at least until this is closed.

    Raises:
        FetchError: with the reason that a vote gives; base_unreachable and base_unusable speak of what is declared.
        OSError: this node cannot keep the files now.
    """
    claim, policy = state.message, state.policy
    endpoint = _endpoint(claim)
    hashes = (claim.evidence_sha256,) if endpoint else (claim.model_sha256, claim.evidence_sha256)
    held.enter_context(fetcher.holding(hashes))
    evidence = await fetcher.fetch(claim.evidence_pointer, claim.evidence_sha256, bytes_max=policy.evidence_bytes_max)
    model = None
    if endpoint is None:
        model = await fetcher.fetch(claim.model_pointer, claim.model_sha256, bytes_max=policy.model_bytes_max)
    declared = declared_in(evidence)
    held.enter_context(fetcher.holding(declared.all))
    fetched, room = {}, DECLARED_MODELS_MAX * policy.model_bytes_max
    for sha256 in declared.all:
        path = await _fetch_declared(fetcher, sha256, bytes_max=min(policy.model_bytes_max, room))
        fetched[sha256], room = path, room - path.stat().st_size
    return ClaimFiles(
        model=model,
        endpoint=endpoint,
        evidence=evidence,
        base=None if declared.base is None else fetched[declared.base],
        nulls=tuple(fetched[null] for null in declared.nulls),
        hashes=(*hashes, *declared.all),
    )


def declared_in(evidence: Path) -> Declared:
    """What an evidence file declares; nothing for a file that is no evidence.

    Of the latter the verifier process says what is wrong with it.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with evidence.open("rb") as file:
            return read_declared(file)
    except MalformedError:
        return Declared()


class NeededUploads:
    """Which uploads claims need.

    Args:
        blobs: the uploads; what evidence among them declares is remembered.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._declared: dict[bytes, Declared] = {}  # by the hash of the evidence

    def by(self, claim: Claim) -> set[bytes]:
        """Hashes of a claim's files; of declared ones only where the evidence was uploaded too, as owners do it."""
        sha256 = claim.evidence_sha256
        if sha256 not in self._declared and (evidence := self._blobs.find(sha256)) is not None:
            self._declared[sha256] = declared_in(evidence)
        return {claim.model_sha256, sha256, *self._declared.get(sha256, Declared()).all}


def _endpoint(claim: Claim) -> str | None:
    """The URL of the endpoint that a claim is on; None for a file."""
    try:
        return endpoint_of(claim.model_pointer, claim.model_sha256)
    except MalformedError as error:
        reason = "hash_mismatch" if error.code == "hash_mismatch" else "unsupported_pointer"
        raise FetchError(reason, str(error)) from error


async def _fetch_declared(fetcher: Fetcher, sha256: bytes, *, bytes_max: int) -> Path:
    try:
        return await fetcher.fetch(f"blob:sha256:{sha256.hex()}", sha256, bytes_max=bytes_max)
    except FetchError as error:
        reason = "base_unusable" if error.reason in _UNUSABLE else "base_unreachable"
        raise FetchError(reason, f"the declared model {sha256.hex()}: {error}", may_pass=error.may_pass) from error
