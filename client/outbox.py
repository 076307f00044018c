"""Messages are saved before they are sent, so that sending again sends the same one (DESIGN 4.1).

The ledger answers a message that it has with its first index. Only one that it refuses as too old, or for a key that
its owner gave up since, and that a quorum of nodes does not have, is followed by a freshly signed one. No saved
message is ever lost.
"""

from collections.abc import Callable
from pathlib import Path

from client.api import Api, Recorded
from client.errors import InputError
from client.files import write_atomic
from client.keystore import PRIVATE_MODE
from registry.envelope import message_hash
from registry.errors import QuorumError, RefusedError

_OUTLIVED = frozenset({"time_skew", "rotated_key"})


async def submit_saved(api: Api, path: Path, *, saved: bytes | None, make: Callable[[], bytes]) -> Recorded:
    """Submit the saved message, or make, save and submit a new one.

    Args:
        api: the ledger.
        path: where a new message is saved before it is sent; its directory must exist. What is there is kept beside it.
        saved: an earlier try's envelope, if it says the same.
        make: signs a new envelope.

    Raises:
        InputError: code busy, another process saves one at the same time.
        RefusedError: by the ledger's rules.
        QuorumError: the outcome is unknown; doing the same again is safe. A note names the message.
    """
    if saved is not None:
        recorded = await _submit_again(api, saved)
        if recorded is not None:
            return recorded
    envelope = make()
    _save_first(path, envelope)
    return await _submit(api, envelope)


async def _submit_again(api: Api, saved: bytes) -> Recorded | None:
    """The saved message's receipt; None when it outlived its time or its key before it was recorded."""
    try:
        return await _submit(api, saved)
    except RefusedError as error:
        if error.code not in _OUTLIVED:
            raise
    # One node says so, by its clock or its state. The others may have recorded the message long ago.
    return await api.find(message_hash(saved))


async def _submit(api: Api, envelope: bytes) -> Recorded:
    try:
        return await api.submit(envelope)
    except QuorumError as error:
        error.add_note(f"the message {message_hash(envelope).hex()} may be recorded all the same; run this again")
        raise


def _save_first(path: Path, envelope: bytes) -> None:
    if path.exists():
        path.replace(path.with_name(f"{path.stem}-{message_hash(path.read_bytes()).hex()[:16]}{path.suffix}"))
    try:
        write_atomic(path, envelope, mode=PRIVATE_MODE, replace=False)
    except FileExistsError as error:
        message = f"{path}: appeared just now; another wmreg sends the same from here. Run this again when it is done"
        raise InputError(message, code="busy") from error
