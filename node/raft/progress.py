"""What a leader knows about each follower, from numbered messages.

Every append_entries carries a number that its answer repeats. PySyncObj has no such numbers and so obeys old answers:
a follower that is two batches behind a conflict answers "go back to k" and then "go back to k + 1", each sends the
leader back for another round, and the follower never catches up. Here an order to go back counts only if it answers
something sent after the last such order was obeyed, and an answer counts as a sign of life, and as proof of
leadership, only for what was sent in this term of office.
"""

from collections.abc import Iterable


class Progress:
    """Sequence numbers of one leader."""

    def __init__(self) -> None:
        self.sequence = 0  # number of the last append_entries sent
        self._office_began_at = 0
        self._answered: dict[str, int] = {}
        self._obeyed_at: dict[str, int] = {}

    def begin_office(self) -> None:
        """Forget the followers: this node has just become the leader."""
        self._office_began_at = self.sequence
        self._answered.clear()
        self._obeyed_at.clear()

    def next_sequence(self) -> int:
        """Return the number of the next message."""
        self.sequence += 1
        return self.sequence

    def answer(self, peer: str, sequence: int) -> bool:
        """Note an answer.

        Returns:
            False if it must be ignored: it answers another term of office, or nothing that was ever sent.
        """
        if not self._office_began_at < sequence <= self.sequence:
            return False
        self._answered[peer] = max(sequence, self._answered.get(peer, 0))
        return True

    def obey_reset(self, peer: str, sequence: int) -> bool:
        """Return whether an order to go back is news; the messages sent so far then no longer count."""
        if sequence <= self._obeyed_at.get(peer, 0):
            return False
        self._obeyed_at[peer] = self.sequence
        return True

    def proven_sequence(self, peers: Iterable[str], *, majority: int) -> int:
        """Return the highest number that a majority, the leader included, has answered or passed.

        Args:
            peers: the other members.
            majority: of all members, the leader included.
        """
        if majority == 1:
            return self.sequence + 1  # a cluster of one sends nothing and has nobody to ask
        answered = sorted((self._answered.get(peer, 0) for peer in peers), reverse=True)
        return answered[majority - 2]
