"""The evidence file: one safetensors file that holds the head's tensors, the reference's, and the canonical `info`.

    metadata  format  "wmreg-evidence/1"
              salt    64 hexadecimal digits; hides the low-entropy info behind H(info)
              info    canonical JSON
    tensors   the head's, by name; and where the info says so, `reference.responses` and `reference.scale`,
              to which a suspect's channels are aligned (`wm.alignment`)

Source: DESIGN 4.3. The digests H(cWM) and H(info) are the ledger's business and are not computed here.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from wm import tensorfile
from wm.alignment import Reference, make_reference, probing_for, reference_from_tensors
from wm.architectures import skeleton
from wm.backbone import feature_count
from wm.errors import WatermarkError
from wm.head import Head, head_from_tensors
from wm.info import Info, decode_info, encode_info
from wm.tap_shapes import taps_of

FORMAT = "wmreg-evidence/1"
SALT_BYTES = 32
EVIDENCE_BYTES_MAX = 20 << 20  # 2^22 parameters of 4 bytes, a reference of 2 MiB, and the header
_REFERENCE_PREFIX = "reference."
_SALT = re.compile(rf"[0-9a-f]{{{2 * SALT_BYTES}}}")


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    """What an evidence file says: the head, how it connects, the salt of H(info), and what suspects are aligned to.

    Without a reference, which `with_reference` adds, nothing is aligned.
    """

    head: Head
    info: Info
    salt: bytes
    reference: Reference | None = None


def with_reference(evidence: EvidenceFile, model: nn.Module) -> EvidenceFile:
    """Add the marked model's answers to the public probes, so that a copy is known whatever the order of its channels.

    Args:
        evidence: of a mark that the model carries. Its info says how the reference is to be read; where it says
            nothing, its head was not taught to read what is centred, and nothing is.
        model: the model as it will be released; with several watermarks, the one that carries them all.

    Returns:
        The evidence with a reference; without one where a tap has more channels than can be aligned.

    Raises:
        WatermarkError: `malformed`, the model answers with a value that is not finite.
    """
    info = evidence.info
    probing = info.reference or probing_for(info.taps, pooling=info.pooling, centred=False)
    info = replace(info, reference=probing)
    reference = None if probing is None else make_reference(model, info)
    return replace(evidence, info=info, reference=reference)


def save_evidence(path: Path, evidence: EvidenceFile) -> str:
    """Write an evidence file atomically.

    Args:
        path: replaced if it exists.
        evidence: its info must have `model_sha256`; its salt 32 bytes.

    Returns:
        SHA-256 of the file, lower-case hexadecimal.

    Raises:
        ValueError: the salt's length, the missing hash, or a reference that the info does not tell of.
        OSError: the folder cannot be written.
    """
    if (evidence.reference is None) != (evidence.info.reference is None):
        raise ValueError("a reference and what the info says of it go together: use with_reference")
    reference = evidence.reference.tensors() if evidence.reference else {}
    return write_parts(path, evidence.head.tensors() | reference, salt=evidence.salt, info=encode_info(evidence.info))


def write_parts(path: Path, tensors: Mapping[str, Tensor], *, salt: bytes, info: str) -> str:
    """Write what an evidence file of any scheme is made of; errors as of `save_evidence`."""
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    return tensorfile.write(path, tensors, {"format": FORMAT, "salt": salt.hex(), "info": info})


def load_evidence(path: Path, *, builder: Callable[[], nn.Module] | None = None) -> EvidenceFile:
    """Read an evidence file and check that its parts fit each other.

    Args:
        path: the file.
        builder: makes the network where it is its owner's own and not of the catalogue.

    Returns:
        The head in evaluation mode on the CPU, info, salt and reference.

    Raises:
        WatermarkError: with the code and the field or tensor at fault.
        OSError: the file cannot be read.
    """
    with tensorfile.opened(path, file_bytes_max=EVIDENCE_BYTES_MAX) as handle:
        metadata: Mapping[str, str] = handle.metadata() or {}
        check_metadata(metadata)
        info = decode_info(metadata["info"], builder=builder)
        check_taps(info)
        tensors: dict[str, Tensor] = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    inputs = feature_count(info.taps, pooling=info.pooling)
    answers = {name: tensors.pop(name) for name in sorted(tensors) if name.startswith(_REFERENCE_PREFIX)}
    head = head_from_tensors(tensors, inputs=inputs, hidden=info.hidden)
    return EvidenceFile(head, info, bytes.fromhex(metadata["salt"]), reference_from_tensors(answers, info))


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


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Check that a file's metadata is that of evidence; raises WatermarkError."""
    if set(metadata) != {"format", "salt", "info"}:
        raise WatermarkError("malformed", "an evidence file's metadata has exactly the keys format, info and salt")
    if metadata["format"] != FORMAT:
        raise WatermarkError("malformed", f"evidence format {metadata['format'][:40]!r}; this version reads {FORMAT}")
    if not _SALT.fullmatch(metadata["salt"]):
        raise WatermarkError("malformed", f"the salt must be {2 * SALT_BYTES} lower-case hexadecimal digits")
