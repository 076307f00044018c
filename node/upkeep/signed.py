"""The checkpoints that a node keeps, compared with the tree while it is replayed: its own, and those of a quorum."""

import sqlite3
from collections.abc import Iterator, Set

from node.upkeep.findings import INQUIRY, NEW_IDENTITY, Findings
from registry.checkpoint import Checkpoint
from registry.errors import RegistryError
from registry.note import Note, SignatureLine, VerifierKey, verify_signatures
from registry.policy import Policy

SIGNED, NOTES = "state/signer.db", "state/notes.db"
DROP_NOTES = "delete it while the node does not run: it is gathered again from the nodes"
_SIGNED_QUERY = "SELECT size, root, time_s, log_line, cosignature_line, previous FROM checkpoints ORDER BY size"
_Row = tuple[object, object, object, object, object, object]


class OwnCheckpoints:
    """The rows of signer.db, in order: the ledger's trees, two signatures that hold, times that never go back.

    Each row names the size of the one before, so that none can be taken out unseen: sizes between two rows are signed
    when somebody asks, at the later one's time (node.signer), and would be given another time.

    Args:
        connection: of the file; None if it cannot be read.
        name: the node's.
        keys: that it has now; those that policies list for it are added as they come.
        findings: where problems go.
    """

    def __init__(
        self, connection: sqlite3.Connection | None, *, name: str, keys: Set[VerifierKey], findings: Findings
    ) -> None:
        self._rows: Iterator[_Row] = iter(()) if connection is None else iter(connection.execute(_SIGNED_QUERY))
        self._name, self._keys, self._findings = name, set(keys), findings
        self._next = next(self._rows, None)
        self._policy: Policy | None = None
        self.size, self._time_s = 0, 0

    def has_more(self) -> bool:
        """Whether larger sizes were signed than the tree has reached."""
        return self._next is not None

    def reach(self, checkpoint: Checkpoint, policy: Policy) -> None:
        """Check what was signed on the tree of the next size."""
        self._learn_keys(checkpoint.origin, policy)
        if self._next is None or self._next[0] != checkpoint.size:
            self._pass(checkpoint.size)
            return
        self._check(checkpoint, self._next)
        if self._next[-1] != self.size:
            self._add(f"size {checkpoint.size} was signed after size {self._next[-1]}, not {self.size}", NEW_IDENTITY)
        self.size, self._next = checkpoint.size, next(self._rows, None)

    def _pass(self, size: int) -> None:
        """Check that a size without a row is one between two rows."""
        if self._next is None:
            return
        if not isinstance(self._next[0], int) or self._next[0] < size:
            self._add(f"a signed checkpoint of size {self._next[0]}, which no tree has", NEW_IDENTITY)
            self._skip_to(size)

    def _skip_to(self, size: int) -> None:
        while self._next is not None and not (isinstance(self._next[0], int) and self._next[0] > size):
            self._next = next(self._rows, None)

    def _learn_keys(self, origin: str, policy: Policy) -> None:
        if policy is self._policy:
            return
        self._policy = policy
        for member in policy.members:
            if member.name == self._name:
                self._keys |= {member.log_key(origin), member.cosigner(origin)}

    def _check(self, checkpoint: Checkpoint, row: _Row) -> None:
        size, root, time_s, *lines, _previous = row
        if root != checkpoint.root:
            self._add(f"this node signed another tree of size {size} than the ledger's", INQUIRY)
            return
        try:
            note = Note(str(checkpoint), tuple(SignatureLine.parse(str(line)) for line in lines))
            times = [signature.timestamp_s for signature in verify_signatures(note, self._keys)]
        except RegistryError as error:
            self._add(f"size {size}: {error}", NEW_IDENTITY)
            return
        if times != [None, time_s]:
            self._add(
                f"size {size}: not the two signatures of this node's keys, at the time that is stored", NEW_IDENTITY
            )
        elif not isinstance(time_s, int) or time_s < self._time_s:
            self._add(f"size {size}: signed before the size below it", NEW_IDENTITY)
        else:
            self._time_s = time_s

    def _add(self, what: str, remedy: str) -> None:
        self._findings.add(SIGNED, what, remedy)


class GatheredNotes:
    """The rows of notes.db: the tree of each is the ledger's."""

    def __init__(self, connection: sqlite3.Connection | None, *, findings: Findings) -> None:
        query = "SELECT size, note FROM notes ORDER BY size"
        self._rows: Iterator[tuple[object, object]] = (
            iter(()) if connection is None else iter(connection.execute(query))
        )
        self._next = next(self._rows, None)
        self._findings = findings

    def reach(self, checkpoint: Checkpoint) -> None:
        """Check the note on the tree of the next size, if there is one."""
        if self._next is None or self._next[0] != checkpoint.size:
            return
        try:
            is_same = Note.parse(str(self._next[1])).text == str(checkpoint)
        except RegistryError as error:
            self._findings.add(NOTES, f"size {checkpoint.size}: {error}", DROP_NOTES)
        else:
            if not is_same:
                self._findings.add(NOTES, f"a quorum signed another tree of size {checkpoint.size}", INQUIRY)
        self._next = next(self._rows, None)
