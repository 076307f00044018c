"""`wmreg verify`: a receipt, a certificate or evidence against nodes, by a trust policy, without any network."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.output import Report

if TYPE_CHECKING:
    from registry.certificate import Story


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
    from client import stories
    from client.errors import INCONSISTENT, InputError
    from client.sdk.offline import verify
    from registry.certificate import Story
    from registry.equivocation import EquivocationStory

    verified = verify(file, options.load_policy(policy_path))
    proven = verified.proven
    if isinstance(proven, Story):
        document, text = stories.certificate_document(proven), stories.certificate_text(proven)
        report = _remarked(document, text, verified.remarks)
        return report if statement_path is None else _export(report, proven, verified.content, statement_path)
    if statement_path is not None:
        raise InputError(f"{file}: --in-toto needs a certificate; nothing else says anything about a model")
    if isinstance(proven, EquivocationStory):
        document, text = stories.equivocation_document(proven), stories.equivocation_text(proven)
        return Report(document=document, text=text, exit_code=INCONSISTENT)
    return _remarked(stories.receipt_document(proven), stories.receipt_text(proven), verified.remarks)


def _remarked(document: dict[str, object], text: str, remarks: Sequence[str]) -> Report:
    """The report, with what could not be checked or compared."""
    notes = "".join(f"\n\nnote: {remark}" for remark in remarks)
    return Report(document=document | {"remarks": list(remarks)}, text=text + notes)


def _export(report: Report, story: "Story", certificate: bytes, path: Path) -> Report:
    """Write the in-toto statement, and say so in the report."""
    from client.files import write_new
    from registry.intoto import statement

    write_new(path, statement(story, certificate))
    return Report(
        document=report.document | {"in_toto": str(path)},
        text=f"{report.text}\n\nin-toto statement, not signed: {path}",
    )
