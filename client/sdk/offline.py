"""Receipts, certificates and evidence are checked without any network."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from client.continuity import check_offline
from client.errors import InputError, InvalidError
from client.files import explaining, naming, read_limited
from client.memory import Memory
from client.sdk.inputs import AnyPath, AnyPolicy, policy_of, state_of
from client.sdk.results import VerifiedFile
from client.stories import is_equivocation, unchecked
from registry.certificate import CERTIFICATE_BYTES_MAX, Certificate, verify_certificate
from registry.equivocation import verify_equivocation
from registry.errors import UntrustedError
from registry.receipt import HEADER, Receipt, verify_receipt
from registry.trust import TrustPolicy

_OTHER_MEMBERS = (
    "if the members have changed since it was made, use the policy file of its time, or have it made anew "
    "(wmreg claim, wmreg publish)"
)


def verify(file: AnyPath | bytes, policy: AnyPolicy, *, state_directory: AnyPath | None = None) -> VerifiedFile:
    """Check a receipt, a certificate or evidence of two pasts offline; which of them it is tells `proven`.

    What was seen of the ledger before is compared as far as that goes without a network.

    Args:
        file: a path, or the file's bytes.
        policy: whom you trust: a `TrustPolicy`, the text of one, or the path of its file.
        state_directory: where it is remembered what was seen; None for the command's.

    Raises:
        InvalidError: it is none of the three, or too large for any.
        MalformedError, RefusedError: it is damaged or made up.
        InclusionError: the entry is not in the log that it shows.
        UntrustedError: it holds, but the policy does not vouch for it.
        ConsistencyError: it contradicts what was seen of the ledger before; an `AlarmError` names the evidence.
        InputError, OSError: the policy or the file cannot be read.
    """
    trust, memory = policy_of(policy), Memory.within(state_of(state_directory))
    path = None if isinstance(file, bytes) else Path(file)
    content = _limited(file) if isinstance(file, bytes) else _read(Path(file))
    with explaining(content), _hinting(content, trust):
        if is_equivocation(content):
            with naming(path):
                return VerifiedFile(content=content, proven=verify_equivocation(content, trust))
        if content.lstrip()[:1] == b"{":
            with naming(path):
                return _certificate(content, trust, memory)
        text = _receipt_text(content, "the file" if path is None else str(path))
        with naming(path):
            return _receipt(content, text, trust, memory)


def _certificate(content: bytes, trust: TrustPolicy, memory: Memory) -> VerifiedFile:
    story = verify_certificate(content, trust)
    certificate = Certificate.decode(content)
    notes = [certificate.checkpoint_note, *(earlier.checkpoint_note for earlier in certificate.attestations)]
    remark = check_offline(memory, trust, notes)
    return VerifiedFile(content=content, proven=story, remarks=_told([remark]))


def _receipt(content: bytes, text: str, trust: TrustPolicy, memory: Memory) -> VerifiedFile:
    receipt = Receipt.parse(text)
    verified = verify_receipt(receipt, trust)
    remark = check_offline(memory, trust, [receipt.checkpoint_note])
    return VerifiedFile(content=content, proven=verified, remarks=_told([*unchecked(verified.trusted), remark]))


def _told(remarks: Sequence[str | None]) -> tuple[str, ...]:
    return tuple(remark for remark in remarks if remark is not None)


def _receipt_text(content: bytes, called: str) -> str:
    if not content.startswith(HEADER.encode()[:16]):
        raise InvalidError(f"{called}: neither a receipt nor a certificate nor evidence", code="malformed")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidError(f"{called}: the receipt is damaged: not text", code="malformed") from error


def _read(path: Path) -> bytes:
    """The file; one that is too large for anything that could be verified is no usage error but no such file."""
    try:
        return read_limited(path, CERTIFICATE_BYTES_MAX)
    except InputError as error:
        raise InvalidError(str(error), code=error.code) from error


def _limited(content: bytes) -> bytes:
    if len(content) > CERTIFICATE_BYTES_MAX:
        raise InvalidError(f"larger than the {CERTIFICATE_BYTES_MAX} bytes that such a file may have", code="too_large")
    return content


@contextmanager
def _hinting(content: bytes, trust: TrustPolicy) -> Iterator[None]:
    try:
        yield
    except UntrustedError as error:
        if trust.origin.encode() in content:
            error.add_note(_OTHER_MEMBERS)
        raise
