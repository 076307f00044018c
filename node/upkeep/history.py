"""The history that a node stores three times, replayed once and compared: ledger, journal, signed checkpoints.

The rulebook takes the ledger's entries one by one. Beside it run the journal, whose committed commands must lead to
exactly these entries (what lies between two of them the rules must refuse, or know already), and the node's signed
checkpoints, each of which must state the tree of its size. A ledger that is behind what was signed is completed from
the journal, as the node itself does when it starts. Nothing is held in memory but what the rulebook holds anyway.
"""

import sqlite3
from collections.abc import Iterator

from node.raft import JournalCorruptError, JournalReader
from node.upkeep.findings import INQUIRY, NEW_IDENTITY, REBUILD, Findings, Show
from node.upkeep.signed import SIGNED, GatheredNotes, OwnCheckpoints
from registry import merkle
from registry.checkpoint import Checkpoint
from registry.rules import Accepted, Ledger

LEDGER, JOURNAL = "state/ledger.db", "state/raft.journal"
_SHOW_EVERY = 1000
_Commands = Iterator[tuple[int, bytes | None]]


class BrokenOffError(Exception):
    """The history cannot be followed any further; why is among the findings."""


class History:
    """One replay.

    Args:
        journal: None if there is none that can be read.
        own, notes: what is compared with the tree as it grows.
        findings: where problems go.
        show: tells how far it is.

    Attributes:
        rules: the rulebook, after what was replayed.
    """

    def __init__(
        self,
        journal: JournalReader | None,
        own: OwnCheckpoints,
        notes: GatheredNotes,
        *,
        findings: Findings,
        show: Show,
    ) -> None:
        self._journal, self._own, self._notes, self._findings, self._show = journal, own, notes, findings, show
        self.rules, self._frontier = Ledger(), merkle.Frontier()

    @property
    def root(self) -> bytes:
        """Root of the tree over what was replayed."""
        return self._frontier.root()

    def check(self, ledger: sqlite3.Connection) -> None:
        """Check a ledger against the journal and the checkpoints."""
        rows = ledger.execute("SELECT applied_index FROM raft").fetchall()
        if len(rows) != 1 or not isinstance(rows[0][0], int) or rows[0][0] < 0:
            self._findings.add(LEDGER, "not one applied index", REBUILD)
            return
        applied_index = rows[0][0]
        self._findings.figures["applied_index"] = applied_index
        try:
            self._check_ledger(ledger, applied_index)
            self._complete(applied_index + 1)
        except BrokenOffError:
            self._findings.remarks.append(f"what follows the first {self.rules.size} entries was not checked")
        except JournalCorruptError as error:
            self._findings.add(JOURNAL, str(error), NEW_IDENTITY)
        self._findings.figures["entries"] = self.rules.size

    def check_without_ledger(self, genesis_entry: bytes) -> None:
        """Replay the journal from the genesis: whether a ledger made anew from it is the one that was signed."""
        try:
            self._take(genesis_entry)
            self._complete(1)
        except BrokenOffError:
            pass
        except JournalCorruptError as error:
            self._findings.add(JOURNAL, str(error), NEW_IDENTITY)

    def _check_ledger(self, ledger: sqlite3.Connection, applied_index: int) -> None:
        commands = None if self._journal is None else self._journal.commands(1, applied_index)
        stored = ledger.execute("SELECT position, entry FROM entries ORDER BY position")
        nodes = 0
        for expected, (index, entry) in enumerate(stored):
            if index != expected or not isinstance(entry, bytes):
                self._break_off(f"entry {expected} is missing", REBUILD)
            if index and commands is not None:
                self._follow(commands, entry, ledger)
            nodes += self._check_nodes(ledger, index, self._take(entry))
        if not self.rules.size:
            self._break_off("no entries", REBUILD)
        if commands is not None:
            self._follow(commands, None, ledger)
        (count,) = ledger.execute("SELECT count(*) FROM nodes").fetchone()
        if count != nodes:
            self._findings.add(LEDGER, f"{count} hashes of the tree instead of {nodes}", REBUILD)

    def _take(self, entry: bytes) -> list[merkle.Node]:
        index, applied = self.rules.size, self.rules.apply(entry)
        if not isinstance(applied, Accepted):
            self._break_off(f"entry {index} breaks the rules: {applied}", REBUILD)
        return self._grow(entry)

    def _grow(self, entry: bytes) -> list[merkle.Node]:
        """Let the tree grow by an entry that the rules accepted; compare what was signed on it."""
        made = self._frontier.append(merkle.leaf_hash(entry))
        checkpoint = Checkpoint(origin=self.rules.origin, size=self._frontier.size, root=self._frontier.root())
        self._own.reach(checkpoint, self.rules.policy)
        self._notes.reach(checkpoint)
        if checkpoint.size % _SHOW_EVERY == 0:
            self._show(f"{checkpoint.size} entries")
        return made

    def _check_nodes(self, ledger: sqlite3.Connection, index: int, made: list[merkle.Node]) -> int:
        for node in made:
            if not _is_stored(ledger, node):
                what = f"the stored hash ({node.level}, {node.position}) is not that of entry {index} and those before"
                self._findings.add(LEDGER, what, REBUILD)
        return len(made)

    def _follow(self, commands: _Commands, entry: bytes | None, ledger: sqlite3.Connection) -> None:
        """Go through the journal up to the command that made the next entry; None: to where it is applied."""
        for raft_index, command in commands:
            if command is None:
                continue
            if command == entry:
                return
            applied = self.rules.apply(command)
            if isinstance(applied, Accepted):
                what = f"entry {applied.index} is not the command that the journal has at {raft_index}"
                leaf = merkle.Node(0, applied.index, merkle.leaf_hash(command))
                self._break_off(what, REBUILD if _is_stored(ledger, leaf) else INQUIRY)
        if entry is not None:
            self._break_off(f"entry {self.rules.size} is not in the journal up to where it was applied", INQUIRY)

    def _complete(self, first: int) -> None:
        """Follow the journal behind the ledger, as far as this node has signed."""
        size = self.rules.size
        if self._journal is not None and self._own.has_more():
            for _, command in self._journal.commands(first, self._journal.last_index):
                if command is not None and isinstance(self.rules.apply(command), Accepted):
                    self._grow(command)
                    if not self._own.has_more():
                        break
        if self.rules.size > size:
            behind = self.rules.size - size
            self._findings.remarks.append(
                f"the ledger is {behind} entries behind what was signed; the journal has them"
            )
        if self._own.has_more():
            what = f"larger trees were signed than that of the {self.rules.size} entries in ledger and journal"
            self._findings.add(SIGNED, what, NEW_IDENTITY)

    def _break_off(self, what: str, remedy: str) -> None:
        self._findings.add(LEDGER, what, remedy)
        raise BrokenOffError


def _is_stored(ledger: sqlite3.Connection, node: merkle.Node) -> bool:
    query = "SELECT digest FROM nodes WHERE level = ? AND position = ?"
    stored: object = ledger.execute(query, (node.level, node.position)).fetchone()
    return stored == (node.digest,)
