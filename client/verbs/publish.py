"""`wmreg publish`: commit to a watermarked model before it is released."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.output import Report, utc

if TYPE_CHECKING:
    from client.api import Recorded
    from registry.messages import Message


@click.command("publish", epilog="Example:  wmreg publish mymodel")
@click.argument("directory", type=options.DIRECTORY)
@options.signing_key
@options.policy
@options.patience
@options.as_json
def command(directory: Path, signing_key_path: Path, policy_path: Path, patience_s: float) -> Report:
    """Publish the commitments of DIRECTORY, which `wmreg embed` made.

    The message is saved before it is sent; running the command again sends the same one. The receipt is checked against
    the policy before anything is reported.
    """
    with options.open_client(policy_path, patience_s, owner=signing_key_path) as ledger:
        return _report(ledger.publish(directory))


def _report(recorded: "Recorded") -> Report:
    verified = recorded.verified
    witnesses = verified.trusted.times_s
    text = [
        f"{'was published before' if recorded.duplicate else 'published'} as entry {verified.index}",
        f"message   {verified.signed.hash.hex()}",
        f"recorded  {utc(verified.recorded_s)} by the node that took it",
    ]
    if verified.trusted.not_after_s is not None:
        text.append(f"attested  by {utc(verified.trusted.not_after_s)}, cosigned by {', '.join(sorted(witnesses))}")
    if not _commits_to_model(verified.signed.message):
        text.append("model     not committed to: there was no model.safetensors beside the evidence")
    text += [
        f"receipt   {recorded.receipt_path}",
        "",
        "The model may now be released. Keep the directory; a claim needs all of it.",
    ]
    return Report(
        document={
            "index": verified.index,
            "message_hash": verified.signed.hash.hex(),
            "recorded_s": verified.recorded_s,
            "attested_by_s": verified.trusted.not_after_s,
            "cosigned_by": sorted(witnesses),
            "duplicate": recorded.duplicate,
            "model_committed": _commits_to_model(verified.signed.message),
            "receipt": str(recorded.receipt_path),
        },
        text="\n".join(text),
    )


def _commits_to_model(message: "Message") -> bool:
    from registry.messages import Publication

    return isinstance(message, Publication) and message.model_commitment is not None
