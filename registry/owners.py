"""Who speaks for whom: an owner's signing keys, from the first to the one in use.

A rotation makes the new key the heir of the old one. What the old key published is the new key's from then on; the
old key says nothing more in this ledger, so who has stolen it later can do nothing with it.
"""

from typing import cast

from registry.entry import Placed
from registry.errors import RefusedError
from registry.messages import Rotation


class Owners:
    """The signing keys that a ledger has seen, and which followed which."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._left: set[bytes] = set()
        self._moves: dict[bytes, Placed] = {}
        self._first: dict[bytes, bytes] = {}

    def first_key(self, key: bytes) -> bytes:
        """The key under which this key's owner first appeared: his identity in the ledger."""
        return self._first.get(key, key)

    def note(self, key: bytes) -> None:
        """Remember that a key has signed something."""
        self._seen.add(key)

    def check_speaks(self, key: bytes) -> None:
        """Check that a key was not given up.

        Raises:
            RefusedError: code rotated_key.
        """
        if key in self._left:
            raise RefusedError("the owner has moved from this signing key to another", code="rotated_key")

    def check_rotation(self, rotation: Rotation, signers: tuple[bytes, ...]) -> None:
        """Check that both keys agree, and that the new one has no past of its own.

        Raises:
            RefusedError: code rotated_key, key_in_use or not_signed_by_both.
        """
        self.check_speaks(rotation.old_key)
        if rotation.new_key in self._seen or rotation.new_key == rotation.old_key:
            raise RefusedError("the new signing key has signed in this ledger before", code="key_in_use")
        if signers != tuple(sorted((rotation.old_key, rotation.new_key))):
            raise RefusedError("the old and the new key sign a rotation, nobody else", code="not_signed_by_both")

    def moves_to(self, key: bytes) -> list[Placed]:
        """The rotations by which an owner came to this key, the last first."""
        moves = []
        while key in self._moves:
            moves.append(self._moves[key])
            key = cast("Rotation", moves[-1].signed.message).old_key
        return moves

    def rotate(self, rotation: Rotation, placed: Placed) -> None:
        """Make the new key the old one's heir; `placed` is the rotation in the log."""
        self._seen |= {rotation.old_key, rotation.new_key}
        self._left.add(rotation.old_key)
        self._moves[rotation.new_key] = placed
        self._first[rotation.new_key] = self.first_key(rotation.old_key)
