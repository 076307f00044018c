"""How the verbs withdraw, rotate and challenge report their one message."""

from client import stories
from client.api import Recorded
from client.output import Report
from registry.errors import shown
from registry.messages import Challenge, Withdrawal


def act_report(recorded: Recorded, *, again: str = "was recorded before", reason: str | None = None) -> Report:
    """Tell the receipt of a message.

    Args:
        recorded: the message.
        again: what to say of one that the ledger had already.
        reason: the one that was given now; only that of the first message is in the ledger.
    """
    verified, path = recorded.verified, recorded.receipt_path
    lines = [f"{again} as entry {verified.index}", *_unrecorded(recorded, reason), ""] if recorded.duplicate else []
    lines += [stories.receipt_text(verified), "", f"receipt   {path}"]
    return Report(
        document=stories.receipt_document(verified) | {"receipt": str(path), "duplicate": recorded.duplicate},
        text="\n".join(lines),
    )


def _unrecorded(recorded: Recorded, reason: str | None) -> list[str]:
    message = recorded.verified.signed.message
    if reason is None or not isinstance(message, Withdrawal | Challenge) or message.reason == reason:
        return []
    return [f"the new reason is not recorded; the ledger has {shown(message.reason)}"]
