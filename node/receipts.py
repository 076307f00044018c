"""Receipts that this node has verified: the same bytes need no second check, as long as the members are the same.

A receipt is read far more often than it is made, and checking one costs several signatures. It never changes, but for
the checkpoint on it being gathered anew when those who cosigned have left; so each is kept with the policy that it was
checked by. The least recently used go first.
"""

from collections import OrderedDict

from registry.policy import Policy

BYTES_MAX = 32 * 2**20


class VerifiedReceipts:
    """Texts of receipts by index, within BYTES_MAX characters in all; nothing of it is on the disk."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[Policy, str]] = OrderedDict()
        self._total = 0

    def get(self, index: int, policy: Policy) -> str | None:
        """The receipt of an entry, if it was verified by this very policy."""
        kept = self._kept.get(index)
        if kept is None or kept[0] is not policy:
            return None
        self._kept.move_to_end(index)
        return kept[1]

    def put(self, index: int, policy: Policy, text: str) -> None:
        """Keep a receipt that was verified by this policy, instead of an earlier one of the entry."""
        if index in self._kept:
            self._total -= len(self._kept.pop(index)[1])
        self._kept[index] = (policy, text)
        self._total += len(text)
        while self._total > BYTES_MAX:
            self._total -= len(self._kept.popitem(last=False)[1][1])
