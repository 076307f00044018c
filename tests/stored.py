"""The directory of one node with real files and a history in them, made without any process.

Every file is written by the code that writes it in a node; only the order of the commands comes from here.
"""

import hashlib
import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fakes import binding, private_key

from node.config import Config, load_config
from node.identity import load_identity
from node.init import JOURNAL_FILE, NOTES_FILE, SIGNER_FILE, STORE_FILE, init_cluster
from node.notes import NoteCache
from node.raft.journal import DurableJournal
from node.signer import Signer, SignerName
from node.store import Store
from registry import commitments
from registry.entry import Entry
from registry.envelope import seal
from registry.messages import Publication
from registry.note import Note

ORIGIN = "stored.test/wmreg"


@dataclass
class OpenedNode:
    """The files of a node while it runs."""

    store: Store
    signer: Signer
    notes: NoteCache
    journal: DurableJournal

    def order(self, *commands: bytes | None) -> None:
        """Journal, commit and apply these commands; None is a no-op."""
        self.store.begin()
        for command in commands:
            index = self.journal.last_index + 1
            self.journal.add((b"\x01" if command is None else b"\x00" + command, index, 1))
            self.journal.set_commit_index(index)
            self.store.apply(index, command)
        self.store.commit()

    def sign(self) -> None:
        self.signer.sign_up_to(self.store.size, self.store.read_node)
        note = self.note(self.store.size)
        assert note is not None
        self.notes.put(self.store.size, note)

    def note(self, size: int) -> Note | None:
        """The node's own signatures on a size."""
        return self.signer.note(size, stored_size=self.store.size, read_node=self.store.read_node)


@dataclass
class StoredNode:
    """A node's directory."""

    directory: Path
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def make(cls, directory: Path, *, nodes: int = 2) -> "StoredNode":
        """Make a ledger; this is its first node, and the last has signed the genesis alone."""
        init_cluster(directory, nodes=nodes, origin=ORIGIN)
        with cls(directory / f"node-{nodes}").opened() as parts:
            parts.sign()
        return cls(directory / "node-1")

    @property
    def config(self) -> Config:
        return load_config(self.directory / "node.toml")

    @contextmanager
    def opened(self) -> Iterator[OpenedNode]:
        config, state = self.config, self.config.state_directory
        with ExitStack() as stack:
            store = Store(state / STORE_FILE)
            stack.callback(store.close)
            name = SignerName(origin=store.origin, member=config.name)
            signer = Signer(state / SIGNER_FILE, name=name, identity=load_identity(config.keys), clock=time.time)
            stack.callback(signer.close)
            notes = NoteCache(state / NOTES_FILE)
            stack.callback(notes.close)
            journal = DurableJournal(state / JOURNAL_FILE, cache_bytes_max=2**20)
            stack.callback(journal.close)
            yield OpenedNode(store, signer, notes, journal)

    def publication(self) -> bytes:
        """A new entry."""
        key = binding("alice", origin=ORIGIN, number=next(self.numbers)).watermark_key
        now_s = int(time.time())
        message = Publication(
            time_s=now_s,
            scheme="mtlsign",
            key_commitment=commitments.key_commitment(key),
            head_commitment=b"h" * 32,
            info_commitment=b"i" * 32,
        )
        return Entry(seal(message, origin=ORIGIN, private_keys=[private_key("alice")]), now_s).encode()

    def publish(self, count: int) -> None:
        with self.opened() as parts:
            for _ in range(count):
                parts.order(self.publication())
                parts.signer.sign_up_to(parts.store.size, parts.store.read_node)  # each in a group of its own
            parts.sign()

    def order(self, *commands: bytes | None) -> None:
        with self.opened() as parts:
            parts.order(*commands)

    def snapshot(self) -> dict[str, str]:
        """Every file below the directory, by the hash of its content; shared memory of SQLite is no content."""
        files = (path for path in self.directory.rglob("*") if path.is_file() and path.suffix != ".db-shm")
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def contents(self) -> tuple[object, ...]:
        """What the files say, read by the code that a node reads them with."""
        with self.opened() as parts:
            size = parts.store.size
            return (
                parts.store.entries(0, size),
                parts.store.root(size),
                parts.store.applied_index,
                [str(parts.note(number)) for number in range(1, size + 1)],
                [parts.journal.entry(number) for number in range(1, parts.journal.last_index + 1)],
                (parts.journal.term, parts.journal.voted_for),
            )
