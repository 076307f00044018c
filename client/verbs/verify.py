"""`wmreg verify`: a receipt, a certificate or evidence against nodes, by a trust policy, without any network."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.output import Report

if TYPE_CHECKING:
    from registry.certificate import Certificate, Story
    from registry.trust import TrustPolicy

_OTHER_MEMBERS = (
    "if the members have changed since it was made, use the policy file of its time, or have it made anew "
    "(wmreg claim, wmreg publish)"
)


@click.command("verify", epilog="Example:  wmreg verify certificate.json --in-toto statement.json")
@click.argument("file", type=options.FILE)
@click.option(
    "--in-toto",
    "statement_path",
    type=options.NEW_FILE,
    help="Write what the certificate proves to this new file, as an in-toto Statement v1. It is not signed.",
)
@options.policy
@options.as_json
def command(file: Path, statement_path: Path | None, policy_path: Path) -> Report:
    """Check FILE, a receipt, a certificate or evidence that a log was shown with two pasts, offline.

    Tells what it proves: who, what, when, by the word of how many nodes, with which numbers, and what it does not.
    Evidence that holds is an alarm about the log: exit code 5.
    """
    from client.files import explaining
    from registry.errors import UntrustedError

    trust = options.load_policy(policy_path)
    content = _read(file)
    with explaining(content):
        try:
            return _verify(file, content, trust, statement_path)
        except UntrustedError as error:
            if trust.origin.encode() in content:
                error.add_note(_OTHER_MEMBERS)
            raise


def _read(file: Path) -> bytes:
    """The file; one that is too large for anything that could be verified is no usage error but no such file."""
    from client.errors import InputError, InvalidError
    from client.files import read_limited
    from registry.certificate import CERTIFICATE_BYTES_MAX

    try:
        return read_limited(file, CERTIFICATE_BYTES_MAX)
    except InputError as error:
        raise InvalidError(str(error), code=error.code) from error


def _verify(file: Path, content: bytes, trust: "TrustPolicy", statement_path: Path | None) -> Report:
    from client import stories
    from client.continuity import check_offline
    from client.errors import INCONSISTENT, InputError, InvalidError
    from client.memory import Memory
    from registry.certificate import Certificate, verify_certificate
    from registry.equivocation import verify_equivocation
    from registry.receipt import HEADER, Receipt, verify_receipt

    if stories.is_equivocation(content):
        with options.naming(file):
            proven = verify_equivocation(content, trust)
        if statement_path is not None:
            raise InputError(f"{file}: --in-toto needs a certificate; this is evidence against nodes")
        return Report(
            document=stories.equivocation_document(proven),
            text=stories.equivocation_text(proven),
            exit_code=INCONSISTENT,
        )
    if content.lstrip()[:1] == b"{":
        with options.naming(file):
            story = verify_certificate(content, trust)
            remark = check_offline(Memory.default(), trust, _notes(Certificate.decode(content)))
        report = _remarked(stories.certificate_document(story), stories.certificate_text(story), [remark])
        return report if statement_path is None else _export(report, story, content, statement_path)
    if statement_path is not None:
        raise InputError(f"{file}: --in-toto needs a certificate; a receipt says nothing about a model")
    if not content.startswith(HEADER.encode()[:16]):
        raise InvalidError(f"{file}: neither a receipt nor a certificate nor evidence", code="malformed")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InvalidError(f"{file}: the receipt is damaged: not text", code="malformed") from error
    with options.naming(file):
        receipt = Receipt.parse(text)
        verified = verify_receipt(receipt, trust)
        remark = check_offline(Memory.default(), trust, [receipt.checkpoint_note])
    remarks = [*stories.unchecked(verified.trusted), remark]
    return _remarked(stories.receipt_document(verified), stories.receipt_text(verified), remarks)


def _notes(certificate: "Certificate") -> list[str]:
    """All signed checkpoints of a certificate."""
    return [certificate.checkpoint_note, *(earlier.checkpoint_note for earlier in certificate.attestations)]


def _remarked(document: dict[str, object], text: str, remarks: Sequence[str | None]) -> Report:
    """The report, with what could not be checked or compared."""
    told = [remark for remark in remarks if remark is not None]
    notes = "".join(f"\n\nnote: {remark}" for remark in told)
    return Report(document=document | {"remarks": told}, text=text + notes)


def _export(report: Report, story: "Story", certificate: bytes, path: Path) -> Report:
    """Write the in-toto statement, and say so in the report."""
    from client.files import write_new
    from registry.intoto import statement

    write_new(path, statement(story, certificate))
    return Report(
        document=report.document | {"in_toto": str(path)},
        text=f"{report.text}\n\nin-toto statement, not signed: {path}",
    )
