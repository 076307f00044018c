"""Before a restored node signs anything, it proves that its tree is the one that the others sign.

A backup may be of a history that the ledger has left behind: forged while it lay somewhere, or from before its nodes
were set up anew. So the node asks the other members for the largest checkpoint that a quorum has signed, catches up
with every one of them, and compares the roots. Until then it stores and serves, and its health says what it waits for.
A different root stops it from signing until a person has looked.

The file that says so is made before the state is complete and removed after the proof, so no crash skips it.
"""

import asyncio
import json
import logging
from contextlib import suppress
from pathlib import Path

import aiohttp

from node.bodies import read_limited
from node.durable import sync_directory
from node.errors import InconsistentStateError
from node.logs import fields
from node.rising import RisingCount
from node.store import Store
from registry.checkpoint import Checkpoint
from registry.errors import RegistryError
from registry.note import NOTE_BYTES_MAX, Note
from registry.policy import Member
from registry.trust import TrustPolicy

UNPROVEN_FILE = "unproven.json"
WAITING = "restored from a backup: signs when its tree is proved to be the one that the other nodes sign"
ASK_TIMEOUT_S = 10.0
RETRY_S = 1.0
CATCH_UP_S = 30.0

logger = logging.getLogger(__name__)


def mark_unproven(state: Path, *, size: int) -> None:
    """Note in a state directory that its first `size` entries came from a backup."""
    (state / UNPROVEN_FILE).write_text(json.dumps({"restored_size": size}) + "\n", encoding="ascii")
    sync_directory(state)


def is_unproven(state: Path) -> bool:
    """Whether the node may not sign yet."""
    return (state / UNPROVEN_FILE).exists()


class Proof:
    """The proof of one node.

    Args:
        name: the node's.
        state: its state directory.
        store: its ledger.
        applied: entries that are durable in it.
        session: for requests to the peers; they are named by the policy, and may have private addresses.
    """

    waiting = WAITING

    def __init__(
        self, name: str, state: Path, *, store: Store, applied: RisingCount, session: aiohttp.ClientSession
    ) -> None:
        self._name, self._state, self._store = name, state, store
        self._applied, self._session = applied, session

    async def give(self) -> None:
        """Return once the tree is proved, and never ask for it again.

        Raises:
            InconsistentStateError: a quorum has signed another tree.
        """
        while True:
            if await self._try():
                break
            await asyncio.sleep(RETRY_S)
        await asyncio.to_thread(self._forget)
        logger.info("restored history proved", extra=fields(size=self._store.size))

    async def _try(self) -> bool:
        """Ask every peer, catch up with all that answer, compare; False if too few answer or it takes too long."""
        policy = self._store.policy
        peers = [member for member in policy.members if member.name != self._name]
        trust = TrustPolicy.of(policy, self._store.origin)
        answers = await asyncio.gather(*(self._ask(peer, trust) for peer in peers))
        known = [checkpoint for checkpoint in answers if checkpoint is not None]
        if len(known) < min(policy.quorum, len(peers)):
            return False
        if not await self._applied.wait_for(max((known.size for known in known), default=0), CATCH_UP_S):
            return False
        for checkpoint in known:
            if self._store.root(checkpoint.size) != checkpoint.root:
                raise InconsistentStateError(
                    f"the restored tree of size {checkpoint.size} is not the one that a quorum signed: the backup is "
                    "of another history; keep it for inquiry, and let this member start without it"
                )
        return True

    async def _ask(self, peer: Member, trust: TrustPolicy) -> Checkpoint | None:
        """The largest checkpoint that a peer can prove to be a quorum's; None if it gives none now."""
        limit = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        with suppress(aiohttp.ClientError, TimeoutError, UnicodeError, RegistryError):
            async with self._session.get(f"{peer.api_url}/checkpoint", timeout=limit, allow_redirects=False) as answer:
                if answer.status == 200:
                    note = Note.parse((await read_limited(answer.content, NOTE_BYTES_MAX)).decode())
                    return trust.check(note).checkpoint
        return None

    def _forget(self) -> None:
        (self._state / UNPROVEN_FILE).unlink()
        sync_directory(self._state)
