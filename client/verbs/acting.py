"""How the verbs withdraw, rotate and challenge submit their one message and report it."""

import asyncio
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client import options, stories
from client.acts import Act, Acts
from client.api import Recorded
from client.errors import InputError
from client.memory import Memory
from client.output import Report
from registry.errors import MalformedError
from registry.trust import TrustPolicy


def act(message: Act, private_keys: Sequence[Ed25519PrivateKey], trust: TrustPolicy, patience_s: float) -> Report:
    """Submit a message and tell its receipt.

    Raises:
        InputError: a field is not what the ledger takes.
        RegistryError: see `client.acts.Acts.submit`.
    """
    try:
        type(message).from_body(message.to_body())
    except MalformedError as error:
        raise InputError(str(error)) from error
    acts = Acts.default(trust.origin)

    async def run() -> Recorded:
        async with options.ledger(trust, patience_s) as api:
            return await acts.submit(api, Memory.default(), message, private_keys)

    recorded = asyncio.run(run())
    path = acts.receipt(message)
    return Report(
        document=stories.receipt_document(recorded.verified) | {"receipt": str(path), "duplicate": recorded.duplicate},
        text=f"{stories.receipt_text(recorded.verified)}\n\nreceipt   {path}",
    )
