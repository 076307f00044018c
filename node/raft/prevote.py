"""Pre-vote: a node asks whether it could win before it raises the term.

Without it, a node that hears no leader, because only its own link is cut, raises its term at every timeout and
deposes a healthy leader when the link comes back. Source: Ongaro, "Consensus: Bridging Theory and Practice", 9.6.
"""


class PreVote:
    """One node's rounds of asking. Pure: the caller sends the messages."""

    def __init__(self, *, name: str, majority: int) -> None:
        """Args: name of this node, which votes for itself; majority of all members, oneself included."""
        self._name = name
        self._majority = majority
        self._round = 0
        self._voters: set[str] = set()
        self._is_won = False

    def begin(self) -> int:
        """Start a new round; answers to older ones no longer count. Returns its number."""
        self._round += 1
        self._voters = {self._name}
        self._is_won = len(self._voters) >= self._majority
        return self._round

    def count(self, voter: str, *, answered_round: int) -> bool:
        """Count a granted pre-vote.

        Returns:
            True if the round is won, by this vote or before.
        """
        if answered_round == self._round and self._voters:
            self._voters.add(voter)
            self._is_won = len(self._voters) >= self._majority
        return self._is_won

    def cancel(self) -> None:
        """End the round: answers to it no longer count."""
        self._round += 1
        self._voters = set()
        self._is_won = False

    def take_win(self) -> bool:
        """Return whether the round is won, and end it if so: the caller stands, late answers must not repeat that."""
        is_won = self._is_won
        if is_won:
            self.cancel()
        return is_won
