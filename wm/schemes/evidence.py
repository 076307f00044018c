"""The evidence file of a scheme without a branch: the same container as MTLSign's, with the scheme's own tensors.

    metadata  format "wmreg-evidence/1", salt, info: as in `wm.evidence`
    tensors   the scheme's payload, by name

H(cWM), which the owner publishes, is over these tensors; for such a scheme it commits to the triggers or to the
values that were embedded.

Source: DESIGN 4.3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from wm import tensorfile
from wm.architectures import skeleton
from wm.backbone import classes_of
from wm.errors import WatermarkError
from wm.evidence import EVIDENCE_BYTES_MAX, check_metadata, write_parts
from wm.info import Info, decode_info
from wm.info_fields import parse_canonical_json
from wm.schemes import mtlsign
from wm.schemes.catalogue import Scheme, scheme_of
from wm.schemes.info import SchemeInfo, decode_scheme_info, encode_scheme_info
from wm.schemes.scheme import Payload


@dataclass(frozen=True, slots=True)
class SchemeEvidence:
    """What such an evidence file says: the info, the payload, the salt of H(info)."""

    info: SchemeInfo
    payload: Payload
    salt: bytes

    @property
    def scheme(self) -> Scheme:
        """The scheme that made it."""
        return scheme_of(self.info.scheme)


def save_scheme_evidence(path: Path, evidence: SchemeEvidence) -> str:
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
    info = encode_scheme_info(evidence.info)
    return write_parts(path, evidence.payload.tensors(), salt=evidence.salt, info=info)


def load_scheme_evidence(path: Path, *, builder: Callable[[], nn.Module] | None = None) -> SchemeEvidence:
    """Read an evidence file of a scheme without a branch, and check that its parts fit each other.

    Raises:
        WatermarkError: with the code and the field or tensor at fault.
        OSError: the file cannot be read.
    """
    with tensorfile.opened(path, file_bytes_max=EVIDENCE_BYTES_MAX) as handle:
        metadata = handle.metadata() or {}
        check_metadata(metadata)
        info = decode_scheme_info(metadata["info"], builder=builder)
        scheme = scheme_of(info.scheme)
        _check_info(info, scheme)
        tensors: dict[str, Tensor] = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    return SchemeEvidence(info, scheme.payload_from(info, tensors), bytes.fromhex(metadata["salt"]))


def info_in(path: Path) -> Info | SchemeInfo:
    """Read an evidence file's info, whatever its scheme, from its header alone.

    Raises:
        WatermarkError: `malformed`, `too_large`; no evidence file, or a field of its info is wrong.
        OSError: the file cannot be read.
    """
    text = _info_text(path)
    return decode_info(text) if _scheme_of_text(text) == mtlsign.NAME else decode_scheme_info(text)


def scheme_named_in(path: Path) -> str:
    """Read from an evidence file's header which scheme made it.

    Raises:
        WatermarkError: `malformed`, `too_large`; no evidence file, or it names none.
        OSError: the file cannot be read.
    """
    return _scheme_of_text(_info_text(path))


def _check_info(info: SchemeInfo, scheme: Scheme) -> None:
    """Check that an info declares null models only where they are needed, and of the network what is true of it."""
    if info.nulls_sha256 and scheme.statistic != "calibrated":
        raise WatermarkError(
            "malformed", f"info field 'nulls_sha256' must be empty: scheme {info.scheme!r} measures no chance on models"
        )
    if scheme.read_names is not None:
        return  # the network is never run
    classes = classes_of(skeleton(info.architecture), info.input)
    if classes != info.classes:
        raise WatermarkError(
            "mismatch", f"info field 'classes' is {info.classes}; {info.architecture.name} has {classes}"
        )


def _info_text(path: Path) -> str:
    with tensorfile.opened(path, file_bytes_max=EVIDENCE_BYTES_MAX) as handle:
        metadata: Mapping[str, str] = handle.metadata() or {}
    check_metadata(metadata)
    return metadata["info"]


def _scheme_of_text(text: str) -> str:
    info = parse_canonical_json(text)
    name = info.get("scheme") if isinstance(info, dict) else None
    if not isinstance(name, str):
        raise WatermarkError("malformed", "info field 'scheme' must be text")
    return name
