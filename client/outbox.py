"""Messages are saved before they are sent, so that sending again sends the same one (DESIGN 4.1).

The ledger answers a message that it has with its first index. Only one that it refuses as too old, and so never
recorded, is replaced by a freshly signed one.
"""

from collections.abc import Callable
from pathlib import Path

from client.api import Api, Recorded
from client.files import write_atomic
from client.keystore import PRIVATE_MODE
from registry.errors import RefusedError


async def submit_saved(api: Api, path: Path, *, saved: bytes | None, make: Callable[[], bytes]) -> Recorded:
    """Submit the saved message, or make, save and submit a new one.

    Args:
        api: the ledger.
        path: where a new message is saved before it is sent; its directory must exist.
        saved: an earlier try's envelope, if it says the same.
        make: signs a new envelope.

    Raises:
        RefusedError: by the ledger's rules.
        QuorumError: the outcome is unknown; doing the same again is safe.
    """
    if saved is not None:
        try:
            return await api.submit(saved)
        except RefusedError as error:
            if error.code != "time_skew":
                raise
    envelope = make()
    write_atomic(path, envelope, mode=PRIVATE_MODE)
    return await api.submit(envelope)
