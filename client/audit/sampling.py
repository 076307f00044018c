"""Which claims an audit computes again; see `client.audit.recomputing`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Which claims to compute again.

    Attributes:
        share: of the claims that were voted on, in (0, 1]; at least one claim when there are any.
        seed: draws them; the same seed draws the same ones from the same ledger.
    """

    share: Fraction
    seed: int

    def draw(self, claims: Sequence[bytes]) -> list[bytes]:
        """Draw from these claims, by hashes that nobody can foresee without the seed."""
        salt = b"wmreg/v1/recompute\0" + self.seed.to_bytes(8, "big")
        drawn = sorted(claims, key=lambda claim: hashlib.sha256(salt + claim).digest())
        return drawn[: ceil(self.share * len(claims))]
