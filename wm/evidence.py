"""The evidence file: one safetensors file that holds the head's tensors and the canonical `info`.

    metadata  format  "wmreg-evidence/1"
              salt    64 hexadecimal digits; hides the low-entropy info behind H(info)
              info    canonical JSON
    tensors   the head's, by name

Source: DESIGN 4.3. The digests H(cWM) and H(info) are the ledger's business and are not computed here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from wm import tensorfile
from wm.architectures import skeleton
from wm.backbone import feature_count, taps_of
from wm.errors import WatermarkError
from wm.head import Head, head_from_tensors
from wm.info import Info, decode_info, encode_info

FORMAT = "wmreg-evidence/1"
SALT_BYTES = 32
EVIDENCE_BYTES_MAX = 20 << 20  # 2^22 parameters of 4 bytes, and the header
_SALT = re.compile(rf"[0-9a-f]{{{2 * SALT_BYTES}}}")


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    """What an evidence file says: the head, how it connects, and the salt of H(info)."""

    head: Head
    info: Info
    salt: bytes


def save_evidence(path: Path, evidence: EvidenceFile) -> str:
    """Write an evidence file atomically.

    Args:
        path: replaced if it exists.
        evidence: its info must have `model_sha256`; its salt 32 bytes.

    Returns:
        SHA-256 of the file, lower-case hexadecimal.

    Raises:
        ValueError: the salt's length or the missing hash.
        OSError: the folder cannot be written.
    """
    if len(evidence.salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(evidence.salt)}")
    metadata = {"format": FORMAT, "salt": evidence.salt.hex(), "info": encode_info(evidence.info)}
    return tensorfile.write(path, evidence.head.tensors(), metadata)


def load_evidence(path: Path) -> EvidenceFile:
    """Read an evidence file and check that its parts fit each other.

    Args:
        path: the file.

    Returns:
        The head in evaluation mode on the CPU, info and salt.

    Raises:
        WatermarkError: with the code and the field or tensor at fault.
        OSError: the file cannot be read.
    """
    with tensorfile.opened(path, file_bytes_max=EVIDENCE_BYTES_MAX) as handle:
        metadata: Mapping[str, str] = handle.metadata() or {}
        _check_metadata(metadata)
        info = decode_info(metadata["info"])
        check_taps(info)
        tensors: dict[str, Tensor] = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    inputs = feature_count(info.taps, pooling=info.pooling)
    head = head_from_tensors(tensors, inputs=inputs, hidden=info.hidden)
    return EvidenceFile(head, info, bytes.fromhex(metadata["salt"]))


def check_taps(info: Info) -> None:
    """Raise unless the architecture really has these taps with these shapes.

    Raises:
        WatermarkError: `mismatch` or `unknown_architecture`, naming the tap.
    """
    found = taps_of(skeleton(info.architecture), info.modules, info.input)
    for stated, real in zip(info.taps, found, strict=True):
        if stated != real:
            raise WatermarkError(
                "mismatch",
                f"info says that tap {stated.module!r} is {stated.channels} x {stated.height} x {stated.width}, "
                f"the architecture gives {real.channels} x {real.height} x {real.width}",
            )


def _check_metadata(metadata: Mapping[str, str]) -> None:
    if set(metadata) != {"format", "salt", "info"}:
        raise WatermarkError("malformed", "an evidence file's metadata has exactly the keys format, info and salt")
    if metadata["format"] != FORMAT:
        raise WatermarkError("malformed", f"evidence format {metadata['format'][:40]!r}; this version reads {FORMAT}")
    if not _SALT.fullmatch(metadata["salt"]):
        raise WatermarkError("malformed", f"the salt must be {2 * SALT_BYTES} lower-case hexadecimal digits")
