"""A copy of a node's history, made also while it runs, from which a new member starts.

What a node promised is not copied, since a copy of a promise is older than the promise: neither its vote nor the file
of its signed checkpoints. A node that forgot either could vote twice in one term, let an acknowledged entry be
forgotten, or sign a second tree (restore.py says why). The copy therefore holds what all nodes have: the ledger in one
consistent state, and the journal's entries up to the one that this state has applied, which are committed and so never
change. Of the node's own it holds the last signed checkpoint, as evidence, and its keys if they are asked for: with the
signing key a lost member can still agree to its own replacement.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import fields
from pathlib import Path
from tempfile import mkdtemp

from node import store
from node.config import Config, KeyPaths, load_config
from node.durable import sync_directory
from node.errors import ConfigError, InconsistentStateError
from node.init import CONFIG_FILE, GENESIS_FILE, JOURNAL_FILE, NOTES_FILE, SIGNER_FILE, STORE_FILE
from node.raft import JournalBusyError, JournalError, JournalReader, copy_committed
from node.upkeep.findings import Findings, Show
from node.upkeep.history import History
from node.upkeep.manifest import MANIFEST_FILE, Manifest, hash_files
from node.upkeep.readonly import faults, reading
from node.upkeep.signed import GatheredNotes, OwnCheckpoints
from registry.checkpoint import Checkpoint
from registry.note import Note, SignatureLine

COPIED_JOURNAL_FILE = "journal"  # another name than a node's own: it is no node's to go on with
KEYS_DIRECTORY = "keys"
_STEP_PAGES = 4096


def back_up(settings: Path, target: Path, *, with_keys: bool = False, show: Show = lambda _text: None) -> Manifest:
    """Write a backup into a new directory, and check it as fsck would.

    Args:
        settings: the node's node.toml.
        target: must not exist, or be empty.
        with_keys: also copy the private keys.
        show: tells what is being done.

    Raises:
        ConfigError: the target is in use, or the node's files cannot be read.
        InconsistentStateError: the copy contradicts itself, as then the node does; fsck tells more. Nothing is left.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target}: exists; a backup goes into a new directory")
    config = load_config(settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(mkdtemp(prefix=".backup.", dir=target.parent))
    try:
        signed = _copy(config, building, show)
        _write(building / CONFIG_FILE, settings.read_bytes())
        if with_keys:
            _copy_keys(config.keys, building / KEYS_DIRECTORY)
        history = _check_own(building, show)
        manifest = Manifest(
            name=config.name,
            origin=history.rules.origin,
            time_s=int(time.time()),
            size=history.rules.size,
            root=history.root.hex(),
            checkpoint=_spell(signed, origin=history.rules.origin),
            files=hash_files(building),
        )
        _write(building / MANIFEST_FILE, manifest.encode())
        building.rename(target)
        sync_directory(target.parent)
    except (OSError, sqlite3.Error, JournalError) as error:
        raise ConfigError(f"the backup cannot be made: {error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return manifest


def _check_own(building: Path, show: Show) -> History:
    try:
        return check_copy(building, show=show)
    except InconsistentStateError as error:
        raise InconsistentStateError(f"{error}; stop the node and run `wmreg node fsck`") from error


def check_copy(directory: Path, *, show: Show) -> History:
    """Check a backup's history: databases, entries, tree, and the journal that leads to it.

    Returns:
        The replayed history.

    Raises:
        InconsistentStateError: naming the first problem.
        OSError, sqlite3.Error, JournalError: a file cannot be read.
    """
    findings = Findings()
    with (
        reading(directory / STORE_FILE) as ledger,
        reading(directory / NOTES_FILE) as notes,
        JournalReader(directory / COPIED_JOURNAL_FILE, is_exclusive=False) as journal,
    ):
        for fault in faults(ledger, schema=store.SCHEMA, version=store.VERSION):
            findings.add(STORE_FILE, fault, "")
        own = OwnCheckpoints(None, name="", keys=set(), findings=findings)
        history = History(journal, own, GatheredNotes(notes, findings=findings), findings=findings, show=show)
        history.check(ledger)
        if journal.last_index != findings.figures.get("applied_index"):
            findings.add(COPIED_JOURNAL_FILE, "not the entries that the ledger has applied", "")
    if findings.problems:
        problem = findings.problems[0]
        raise InconsistentStateError(f"{problem.part}: {problem.what}")
    return history


_Signed = tuple[int, bytes, str, str]


def _copy(config: Config, building: Path, show: Show) -> _Signed | None:
    """Copy all but settings and keys; return what the node has signed of it."""
    state = config.state_directory
    with _stopped(state / JOURNAL_FILE) as is_stopped:
        show("copying the ledger")
        for name in (STORE_FILE, NOTES_FILE):
            _copy_database(state / name, building / name, is_live=not is_stopped)
        with (
            closing(sqlite3.connect(building / STORE_FILE)) as ledger,
            JournalReader(state / JOURNAL_FILE, is_exclusive=False) as journal,
        ):
            (applied_index,) = ledger.execute("SELECT applied_index FROM raft").fetchone()
            show("copying the journal")
            copy_committed(journal, building / COPIED_JOURNAL_FILE, last=applied_index)
            (size,) = ledger.execute("SELECT count(*) FROM entries").fetchone()
        signed = _last_signed(state / SIGNER_FILE, size, is_live=not is_stopped)
    _write(building / GENESIS_FILE, config.genesis.read_bytes())
    return signed


@contextmanager
def _stopped(journal: Path) -> Iterator[bool]:
    """Whether the node does not run; then it is kept from starting until the end."""
    with ExitStack() as held:
        try:
            held.enter_context(JournalReader(journal, is_exclusive=True))
        except JournalBusyError:
            yield False
            return
        yield True


def _copy_database(source: Path, target: Path, *, is_live: bool) -> None:
    """SQLite's online backup, in one read transaction: what is written meanwhile neither shows nor restarts it."""
    with reading(source, is_live=is_live) as connection, closing(sqlite3.connect(target)) as copy:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.backup(copy, pages=_STEP_PAGES, sleep=0)
        connection.execute("COMMIT")
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, that a reader of the backup need not write beside
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _copy_keys(keys: KeyPaths, target: Path) -> None:
    target.mkdir(mode=0o700)
    for role in fields(keys):
        path = getattr(keys, role.name)
        _write(target / path.name, path.read_bytes())


def _last_signed(path: Path, size: int, *, is_live: bool) -> _Signed | None:
    """What the node has signed on the largest tree of at most that size."""
    query = "SELECT size, root, log_line, cosignature_line FROM checkpoints WHERE size <= ? ORDER BY size DESC LIMIT 1"
    with reading(path, is_live=is_live) as connection:
        row: _Signed | None = connection.execute(query, (size,)).fetchone()
    return row


def _spell(signed: _Signed | None, *, origin: str) -> str:
    if signed is None:
        return ""
    size, root, *lines = signed
    text = str(Checkpoint(origin=origin, size=size, root=root))
    return str(Note(text, tuple(SignatureLine.parse(line) for line in lines)))


def _write(path: Path, content: bytes) -> None:
    """Write a small file that only its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
