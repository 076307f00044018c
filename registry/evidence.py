"""The evidence file, as far as the ledger is concerned: what the commitments are over (DESIGN 4.3).

One safetensors file: the tensors are the head (cWM); the metadata holds the format, the salt and the canonical
info. What the info says is the watermark scheme's business; here it only must have one spelling: JSON with sorted
keys, no spaces, ASCII, and no floats.
"""

import json
import re
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

import safetensors

from registry import commitments
from registry.commitments import SALT_BYTES, TensorBytes
from registry.errors import MalformedError

FORMAT = "wmreg-evidence/1"
EVIDENCE_BYTES_MAX = 64 * 2**20
HEADER_BYTES_MAX = 256 * 1024
TENSORS_MAX = 256
NULLS_MAX = 16
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Declared:
    """Hashes of weights that an info declares, and that nodes fetch as blobs.

    Attributes:
        base: what the owner fine-tuned; None for nothing.
        nulls: models that were trained for the same task without the mark.
    """

    base: bytes | None = None
    nulls: tuple[bytes, ...] = ()

    @property
    def all(self) -> tuple[bytes, ...]:
        """Every one of them."""
        return self.nulls if self.base is None else (self.base, *self.nulls)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceFile:
    """What an owner keeps until a claim: the head's tensors, the salt, and the canonical info as bytes."""

    tensors: tuple[TensorBytes, ...]
    salt: bytes
    info: bytes

    @property
    def head_commitment(self) -> bytes:
        """H(cWM) of this file."""
        return commitments.head_commitment(self.tensors)

    @property
    def info_commitment(self) -> bytes:
        """H(info) of this file."""
        return commitments.info_commitment(self.salt, self.info)

    @property
    def scheme(self) -> str:
        """Name of the watermark scheme that the info states.

        Raises:
            MalformedError: it states none.
        """
        scheme = json.loads(self.info).get("scheme")
        if not isinstance(scheme, str) or not scheme:
            raise MalformedError("evidence: info names no scheme")
        return scheme

    @property
    def declared(self) -> "Declared":
        """Other models that the info declares; raises MalformedError when what it says is no hash."""
        return _declared_in(self.info)


def parse_evidence(raw: bytes) -> EvidenceFile:
    """Read an evidence file.

    Raises:
        MalformedError: not safetensors, too large, or its metadata is not an evidence file's.
    """
    if len(raw) > EVIDENCE_BYTES_MAX:
        raise MalformedError(f"evidence of {len(raw)} bytes; at most {EVIDENCE_BYTES_MAX}", code="too_large")
    metadata = _metadata(raw)
    if set(metadata) != {"format", "salt", "info"} or metadata["format"] != FORMAT:
        raise MalformedError(f"evidence: the metadata must be format ({FORMAT}), salt and info")
    try:
        listing = safetensors.deserialize(raw)
    except safetensors.SafetensorError as error:
        raise MalformedError(f"evidence: not a safetensors file: {error}") from error
    if len(listing) > TENSORS_MAX:
        raise MalformedError(f"evidence: more than {TENSORS_MAX} tensors", code="too_large")
    tensors = tuple(
        TensorBytes(name, str(t["dtype"]), tuple(t["shape"]), bytes(t["data"])) for name, t in sorted(listing)
    )
    return EvidenceFile(tensors=tensors, salt=_salt(metadata["salt"]), info=_info(metadata["info"]))


def read_declared(file: BinaryIO) -> Declared:
    """What an evidence file declares, from the file's header alone.

    Raises:
        MalformedError: no evidence file, or what it says is no hash.
    """
    metadata = _metadata(file.read(8 + HEADER_BYTES_MAX))
    return _declared_in(_info(metadata.get("info", "")))


def _declared_in(info: bytes) -> Declared:
    stated = json.loads(info)
    base, nulls = stated.get("base_sha256"), stated.get("nulls_sha256", [])
    if base is not None and not _is_sha256(base):
        raise MalformedError("evidence: info's base_sha256 is neither null nor 64 hexadecimal digits in lower case")
    if not isinstance(nulls, list) or len(nulls) > NULLS_MAX or not all(map(_is_sha256, nulls)):
        raise MalformedError(f"evidence: info's nulls_sha256 is no list of at most {NULLS_MAX} hashes in hexadecimal")
    return Declared(None if base is None else bytes.fromhex(base), tuple(bytes.fromhex(null) for null in nulls))


def _is_sha256(digits: object) -> bool:
    return isinstance(digits, str) and _SHA256.fullmatch(digits) is not None


def _metadata(raw: bytes) -> dict[str, str]:
    """The header's metadata, read before anything of the rest is."""
    length = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or length > min(HEADER_BYTES_MAX, len(raw) - 8):
        raise MalformedError("evidence: not a safetensors file: its header is cut off or too long")
    try:
        header = json.loads(raw[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"evidence: not a safetensors file: {error}") from error
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise MalformedError("evidence: the file has no metadata")
    return metadata


def _salt(digits: str) -> bytes:
    try:
        salt = bytes.fromhex(digits)
    except ValueError as error:
        raise MalformedError("evidence: the salt is not hexadecimal") from error
    if salt.hex() != digits or len(salt) != SALT_BYTES:
        raise MalformedError(f"evidence: the salt is not {SALT_BYTES} bytes in lower-case hexadecimal")
    return salt


def _info(text: str) -> bytes:
    try:
        info = json.loads(text, parse_float=_no_float, parse_constant=_no_float)
        again = json.dumps(info, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"evidence: info is not canonical JSON: {error}") from error
    if not isinstance(info, dict) or again != text:
        raise MalformedError("evidence: info is not a JSON object in its canonical spelling")
    return text.encode()


def _no_float(number: str) -> NoReturn:
    raise ValueError(f"the float {number}; write it as a decimal string")
