"""A node that lost its memory does not come back under its old name.

What a node has voted and acknowledged in Raft, and which checkpoints it has signed, it must never contradict; a node
whose state was wiped, or put back to an older copy, would, without knowing. Its peers know better: they keep the
largest checkpoint that they have seen with its signatures. One that the node does not remember itself is the proof.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from node.bodies import read_limited
from node.errors import InconsistentStateError
from node.logs import fields
from node.membership import Membership
from registry.checkpoint import Checkpoint
from registry.errors import RegistryError
from registry.note import NOTE_BYTES_MAX, Note, VerifierKey, verify_signatures
from registry.policy import Member, Policy

ASK_TIMEOUT_S = 3.0
RETRY_S = 0.25
_FOUND, _NOT_FOUND = 200, 404

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Returning:
    """What a node that starts remembers.

    Attributes:
        member: itself, as the policy lists it.
        origin: the ledger's.
        signed_size: the largest size that it knows to have signed by now.
    """

    member: Member
    origin: str
    signed_size: Callable[[], int]

    @property
    def keys(self) -> tuple[VerifierKey, VerifierKey]:
        """What a checkpoint is checked with that the node has signed itself."""
        return self.member.log_key(self.origin), self.member.cosigner(self.origin)

    async def ask(self, session: aiohttp.ClientSession, policy: Policy) -> int:
        """Ask every other member once; return how many answered.

        Raises:
            InconsistentStateError: one shows a signature that this node does not remember.
        """
        others = [member for member in policy.members if member.name != self.member.name]
        answers = await asyncio.gather(*(self._ask(session, other) for other in others))
        seen = max((size for size in answers if size is not None), default=0)
        remembered = self.signed_size()
        if seen > remembered:
            raise InconsistentStateError(
                f"a peer shows this node's signature on size {seen}, but its own record ends at {remembered}: "
                "its state was lost, or put back to an older copy, and it could contradict what it has said. It must "
                "not run under this name again: let the members remove it, and join as a new node (wmreg node init)"
            )
        return sum(size is not None for size in answers)

    async def ask_majority(self, session: aiohttp.ClientSession, membership: Membership) -> None:
        """Ask until a majority of the members, this node included, has nothing that it does not remember.

        Nobody's silence is taken for an answer: where all nodes start at once, and one of them from an older copy, the
        others are not there yet when it asks first. A node can record nothing without a majority anyway, so waiting
        costs only time. One that was away for long may wait for members who left, so it asks for changes as well.

        Raises:
            InconsistentStateError: as ask().
        """
        is_told = False
        while True:
            policy = membership.latest_policy
            if 1 + await self.ask(session, policy) >= len(policy.members) // 2 + 1:
                return
            if not is_told:
                logger.info("waiting for a majority to answer", extra=fields(name=self.member.name))
                is_told = True
            await asyncio.sleep(RETRY_S)
            await membership.ask(session)

    async def _ask(self, session: aiohttp.ClientSession, peer: Member) -> int | None:
        """The largest size that a peer shows with this node's signatures, 0 for none, None without an answer."""
        url, limit = f"{peer.api_url}/v1/cosignatures/{self.member.name}", aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        try:
            async with session.get(url, timeout=limit, allow_redirects=False) as answer:
                if answer.status not in {_FOUND, _NOT_FOUND}:
                    return None
                raw = await read_limited(answer.content, NOTE_BYTES_MAX) if answer.status == _FOUND else None
        except (aiohttp.ClientError, TimeoutError, UnicodeError, RegistryError):
            return None
        return 0 if raw is None else self._size_in(raw)

    def _size_in(self, raw: bytes) -> int:
        """The size of a checkpoint that this node has signed; 0 for anything else, which is no proof."""
        try:
            note = Note.parse(raw.decode())
            checkpoint = Checkpoint.parse(note.text)
            is_own = bool(verify_signatures(note, self.keys)) and checkpoint.origin == self.origin
        except (UnicodeDecodeError, RegistryError):
            return 0
        return checkpoint.size if is_own else 0
