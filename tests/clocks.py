"""Honest nodes with unlucky clocks: what tests of attested times need."""

from random import Random

from registry.attestation import Mark, mark_of
from registry.checkpoint import Checkpoint
from registry.trust import TrustedCheckpoint

SKEW_S = 300


def trusted(*times_s: int, size: int = 1) -> TrustedCheckpoint:
    checkpoint = Checkpoint(origin="example.org/log", size=size, root=bytes(32))
    signed_s = {f"node-{number}": time_s for number, time_s in enumerate(times_s)}
    return TrustedCheckpoint(checkpoint, signed_s, not_before_s=None, not_after_s=None)


class HonestCluster:
    """Nodes that are honest and unlucky: clocks apart, nodes down for days, caught up slowly, the whole ledger stopped.

    An entry is ordered when a majority is up and has caught up. Those who are up have it at once, but for the last ones
    before a crash, which only the leader has; the others have them when they are up again. Nodes that the majority does
    not need catch up as slowly as they like.
    """

    def __init__(self, random: Random) -> None:
        self.nodes = random.choice([3, 5])
        self.off_s = [random.randint(-SKEW_S // 2, SKEW_S // 2) for _ in range(self.nodes)]
        self.recorded_s: list[int] = []
        self.signed_s: list[list[int]] = [[] for _ in range(self.nodes)]
        waiting: list[int] = []
        now_s = 10**6
        for _ in range(random.randint(2, 6)):
            up = random.sample(range(self.nodes), random.randint(self.nodes // 2 + 1, self.nodes))
            needed = self.nodes // 2 + 1
            for node in up[:needed]:
                now_s = max(now_s, self._catch_up(node, now_s, random.choice([0, 0, 1, 5])))
            for node in up[needed:]:
                self._catch_up(node, now_s, random.choice([0, 1, 500]))
            for proposed_s in [*waiting, *([None] * random.randint(1, 12))]:
                now_s += 0 if proposed_s else random.choice([0, 1, 60, 7200])
                acceptor = random.choice(up)
                self.recorded_s.append((proposed_s or now_s) + self.off_s[acceptor])
                for node in up:
                    self._catch_up(node, now_s, 0)
            waiting = [now_s + random.randint(0, 20) for _ in range(random.choice([0, 0, 3]))]
            for _ in range(random.choice([0, 0, 2])):  # journaled by a majority, applied by the leader only
                self.recorded_s.append(now_s + self.off_s[up[0]])
            self._catch_up(up[0], now_s, 0)
            now_s += random.choice([60, 10**5, 10**6])

    def _catch_up(self, node: int, now_s: int, pace_s: int) -> int:
        signed_s = self.signed_s[node]
        while len(signed_s) < len(self.recorded_s):
            last_s = signed_s[-1] if signed_s else 0
            signed_s.append(max(now_s + self.off_s[node], last_s))
            now_s += pace_s
        return max(now_s, signed_s[-1] - self.off_s[node]) if signed_s else now_s

    def mark(self, size: int, asked: list[int]) -> Mark | None:
        times_s = [self.signed_s[node][size - 1] for node in asked if len(self.signed_s[node]) >= size]
        return mark_of(trusted(*times_s, size=size), self.nodes) if len(times_s) > self.nodes // 2 else None
