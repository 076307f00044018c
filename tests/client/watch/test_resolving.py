"""Promises: what is used stays known; what was not used for longest is forgotten and asked for again."""

import asyncio

import pytest

from client.watch import resolving
from client.watch.resolving import Resolver
from registry.errors import QuorumError
from registry.messages import Claim


class NobodyAnswers:
    """A ledger without a node that answers."""

    async def receipt(self, digest: bytes) -> None:
        raise QuorumError(f"nobody shows {digest.hex()}")


def test_the_message_that_was_not_used_for_longest_is_forgotten(monkeypatch):
    monkeypatch.setattr(resolving, "SUBJECTS_KEPT", 2)
    resolver, (used, unused, later) = Resolver(NobodyAnswers()), (bytes([number]) * 32 for number in range(3))

    async def run() -> None:
        resolver.note(used, Claim.KIND, frozenset())
        resolver.note(unused, Claim.KIND, frozenset())
        await resolver.subject(used)
        resolver.note(later, Claim.KIND, frozenset())

        assert (await resolver.subject(used)).kind == Claim.KIND
        assert (await resolver.subject(later)).kind == Claim.KIND
        with pytest.raises(QuorumError):
            await resolver.subject(unused)

    asyncio.run(run())
