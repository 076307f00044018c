"""What the members of one policy vouch for: a checkpoint that many receipts show is checked once."""

from functools import lru_cache

from registry.note import Note
from registry.policy import Policy
from registry.trust import TrustedCheckpoint, TrustPolicy

NOTES_KEPT = 64  # a note of three nodes takes about 4 kB with what was found in it


class Vouching:
    """Checks notes by one policy, and remembers the latest that held.

    Args:
        policy: whose members are trusted.
        origin: of their ledger.

    Attributes:
        policy: the same.
        trust: what a reader who trusts these members trusts.
    """

    def __init__(self, policy: Policy, origin: str) -> None:
        self.policy, self.trust = policy, TrustPolicy.of(policy, origin)
        self._check = lru_cache(maxsize=NOTES_KEPT)(self.trust.check)
        self._read = lru_cache(maxsize=NOTES_KEPT)(lambda text: self._check(Note.parse(text)))

    def check(self, note: Note) -> TrustedCheckpoint:
        """Check a signed checkpoint; raises what `TrustPolicy.check` does."""
        return self._check(note)

    def read(self, text: str) -> TrustedCheckpoint:
        """Check the text of one; raises what `Note.parse` and `TrustPolicy.check` do."""
        return self._read(text)
