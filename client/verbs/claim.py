"""`wmreg claim`: claim a model, wait for the nodes' verdict, keep the certificate."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from client import options
from client.errors import UNAVAILABLE, InputError
from client.output import Report
from client.sdk import STRAGGLERS_S, VERDICT_TIMEOUT_S

if TYPE_CHECKING:
    from client.api import Recorded
    from client.claim_state import ClaimState
    from client.sdk.results import VerifiedCertificate


@click.command("claim", epilog="Example:  wmreg claim suspect.safetensors --evidence mymodel")
@click.argument("model")
@click.option("--evidence", "directory", type=options.DIRECTORY, required=True, help="Directory that embed made.")
@click.option(
    "--watermark",
    type=click.IntRange(0, 15),
    default=0,
    show_default=True,
    help="Which of the directory's watermarks to reveal; 0 is the first.",
)
@click.option("--sha256", help="Hash that the model file must have; required for a URL.")
@click.option("--endpoint", "is_endpoint", is_flag=True, help="MODEL is the URL of a prediction endpoint to be asked.")
@click.option("--wait/--no-wait", default=True, help="Wait for the verdict.  [default: wait]")
@click.option("--timeout-s", type=click.IntRange(0, 7 * 86400), default=int(VERDICT_TIMEOUT_S), show_default=True)
@click.option(
    "--stragglers-s",
    type=click.IntRange(0, 3600),
    default=int(STRAGGLERS_S),
    show_default=True,
    help="After the verdict, how long to wait for the votes of the other nodes.",
)
@click.option("--again", is_flag=True, help="Make a new claim although this model was claimed before.")
@options.signing_key
@options.policy
@options.patience
@options.as_json
def command(  # noqa: PLR0913 (one parameter for each option)
    *,
    model: str,
    directory: Path,
    watermark: int,
    sha256: str | None,
    is_endpoint: bool,
    wait: bool,
    timeout_s: int,
    stragglers_s: int,
    again: bool,
    signing_key_path: Path,
    policy_path: Path,
    patience_s: float,
) -> Report:
    """Claim that MODEL carries the mark that was published from the --evidence directory.

    MODEL is a file (it is uploaded to the nodes), an https:// URL with --sha256, or blob:sha256:...; with --endpoint it
    is the https:// URL of a model that nodes ask themselves (docs/endpoint.md), for a black-box scheme. The models that
    the evidence declares are uploaded too. A claim reveals the watermark key for good. Everything that can be checked
    beforehand is checked before it is revealed.

    The verdict of a mark of integrity is INTACT or TAMPERED.

    Exit codes: 0 the model is verified, or intact, and the claim prevails, 1 it is not or does not, 4 there is no
    verdict yet, or none that a quorum of the nodes tells alike.
    """
    from client.bundle import Bundle
    from client.errors import PendingError
    from client.progress import status_line
    from client.suspects import endpoint_at

    if is_endpoint and sha256 is not None:
        raise InputError("--sha256: not with --endpoint; nobody knows the file behind it")
    suspect = endpoint_at(model) if is_endpoint else model
    with options.open_client(policy_path, patience_s, owner=signing_key_path) as ledger:
        recorded = ledger.claim(suspect, directory, sha256=sha256, watermark=watermark, again=again)
        if not wait:
            return _claimed(recorded)
        with status_line("claim recorded, waiting for the nodes to vote") as show:
            try:
                status = ledger.wait_for_verdict(
                    recorded,
                    timeout_s=timeout_s,
                    stragglers_s=stragglers_s,
                    keep_in=Bundle(directory).part(watermark),
                    on_change=lambda state: show(f"{len(state.votes)} nodes have voted"),
                )
            except PendingError as pending:
                return _uncertified(recorded, pending.state, None)
    if status.certificate is None:
        return _uncertified(recorded, status.state, status.older_publication)
    return _certified(recorded, status.state, status.certificate)


def _claimed(recorded: "Recorded") -> Report:
    digest = recorded.verified.signed.hash.hex()
    return Report(
        document=_document(recorded),
        text=f"claimed as entry {recorded.verified.index}\nclaim  {digest}\n\nFollow it with: wmreg status {digest}",
    )


def _uncertified(recorded: "Recorded", state: "ClaimState", older: "Recorded | None") -> Report:
    from client.stories import older_publication_text, receipt_document

    text = [f"claim  {state.claim}", "", state.votes_table(), "", state.explain()]
    if older is not None:
        text.append(older_publication_text(older.verified))
    if state.exit_code == UNAVAILABLE:
        text.append(f"Follow it with: wmreg status {state.claim}")
    found = {
        "state": state.document,
        "explanation": state.explain(),
        "confirmed": state.confirmed,
        "older_publication": receipt_document(older.verified) if older else None,
    }
    return Report(document=_document(recorded) | found, text="\n".join(text), exit_code=state.exit_code)


def _certified(recorded: "Recorded", state: "ClaimState", certificate: "VerifiedCertificate") -> Report:
    from client.stories import certificate_text

    path, story = certificate.path, certificate.story
    return Report(
        document=_document(recorded) | {"state": state.document, "certificate": str(path)},
        text="\n".join([state.votes_table(), "", certificate_text(story), "", f"certificate  {path}"]),
        exit_code=state.exit_code,
    )


def _document(recorded: "Recorded") -> dict[str, object]:
    verified = recorded.verified
    return {"claim": verified.signed.hash.hex(), "index": verified.index, "recorded_s": verified.recorded_s}
