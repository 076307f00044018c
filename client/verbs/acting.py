"""How the verbs withdraw, rotate and challenge report their one message."""

from client import stories
from client.api import Recorded
from client.output import Report


def act_report(recorded: Recorded) -> Report:
    """Tell the receipt of a message."""
    verified, path = recorded.verified, recorded.receipt_path
    return Report(
        document=stories.receipt_document(verified) | {"receipt": str(path), "duplicate": recorded.duplicate},
        text=f"{stories.receipt_text(verified)}\n\nreceipt   {path}",
    )
