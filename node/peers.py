"""The other nodes' signatures on a checkpoint: each is asked until it answers.

A peer's lines are used only if they are on the very text that this node holds for right and both of them hold; a peer
that signed another tree of the same size has given evidence of a fork, which is logged whole.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

import aiohttp

from node.bodies import read_limited
from node.logs import fields
from registry.errors import MalformedError, RefusedError, RegistryError
from registry.note import NOTE_BYTES_MAX, Note, SignatureLine, verify_signatures
from registry.policy import Member

LONG_POLL_S = 10
ASK_TIMEOUT_S = 30.0
RETRY_S = 0.25

logger = logging.getLogger(__name__)


class Peers:
    """The other nodes of a ledger, as those who sign its checkpoints.

    Args:
        name: this node's, which is not asked.
        origin: of the ledger.
        session: for the requests; the peers are named by the policy, and may have private addresses.
    """

    def __init__(self, name: str, origin: str, session: aiohttp.ClientSession) -> None:
        self._name, self._origin, self._session = name, origin, session

    async def ask_all(
        self, text: str, size: int, members: Sequence[Member]
    ) -> AsyncGenerator[tuple[SignatureLine, ...], None]:
        """Ask all others at once; yield signatures as they come, until the time is over or nobody is left."""
        peers = [member for member in members if member.name != self._name]
        tasks = [asyncio.create_task(self._ask(peer, text, size)) for peer in peers]
        try:
            for answer in asyncio.as_completed(tasks, timeout=ASK_TIMEOUT_S):
                try:
                    yield await answer
                except RegistryError as error:
                    logger.warning("a peer's cosignature was not used", extra=fields(size=size, why=str(error)))
        except TimeoutError:
            return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, peer: Member, text: str, size: int) -> tuple[SignatureLine, ...]:
        """Ask one peer until it answers; the caller sets the time limit."""
        while True:
            with suppress(aiohttp.ClientError, TimeoutError, UnicodeError):
                raw = await self._request(peer, size)
                if raw is not None:
                    return self._check(peer, raw, text)
            await asyncio.sleep(RETRY_S)

    async def _request(self, peer: Member, size: int) -> bytes | None:
        url = f"{peer.api_url}/v1/checkpoints/{size}"
        limit = aiohttp.ClientTimeout(total=LONG_POLL_S + 5)
        async with self._session.get(
            url, params={"wait_s": str(LONG_POLL_S)}, timeout=limit, allow_redirects=False
        ) as answer:
            if answer.status != 200:
                return None
            return await read_limited(answer.content, NOTE_BYTES_MAX)

    def _check(self, peer: Member, raw: bytes, text: str) -> tuple[SignatureLine, ...]:
        """The peer's two lines, if they are on our text and hold.

        Raises:
            RefusedError, MalformedError: they are not, or do not.
        """
        try:
            note = Note.parse(raw.decode())
        except UnicodeDecodeError as error:
            raise MalformedError(f"{peer.name}: not a note") from error
        keys = [peer.log_key(self._origin), peer.cosigner(self._origin)]
        verified = verify_signatures(note, keys)
        if note.text != text and verified:
            logger.error("fork: a peer signed another tree", extra=fields(peer=peer.name, note=str(note), own=text))
        if note.text != text or len(verified) != len(keys):
            raise RefusedError(f"{peer.name} did not sign this node's checkpoint", code="bad_cosignature")
        known = {(key.name, key.key_id) for key in keys}
        return tuple(line for line in note.signatures if (line.name, line.key_id) in known)
