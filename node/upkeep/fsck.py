"""Every file of a node that does not run, checked against itself and against the others.

Nothing is changed, and the node is kept from starting meanwhile by the journal's lock. What the checks cannot see: a
tail of the journal that was durable and is gone looks like a write that was torn; the ledger's applied index and the
signed checkpoints give away all but the last moments of it.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from node import notes, signer, store
from node.config import Config
from node.errors import ConfigError
from node.init import BLOBS_DIRECTORY, JOURNAL_FILE, NOTES_FILE, SIGNER_FILE, STORE_FILE
from node.raft import JournalBusyError, JournalCorruptError, JournalReader
from node.reach import is_out_of_reach, out_of_reach
from node.upkeep.files import GENESIS, check_files, check_membership, verifier_keys
from node.upkeep.findings import NEW_IDENTITY, REBUILD, Findings, Problem, Show
from node.upkeep.history import JOURNAL, LEDGER, History
from node.upkeep.readonly import faults, reading
from node.upkeep.signed import DROP_NOTES, NOTES, SIGNED, GatheredNotes, OwnCheckpoints
from node.upkeep.startup import check_reach
from registry.entry import Entry
from registry.envelope import unseal
from registry.errors import RegistryError

_BLOCK_BYTES = 2**20


def examine(config: Config, *, show: Show = lambda _text: None) -> Findings:
    """Check a node's files.

    Args:
        config: the node's settings.
        show: tells what is being done.

    Raises:
        ConfigError: the node runs, or its files are out of reach.
    """
    check_reach(config.state_directory, is_read_only=True)
    findings = Findings()
    with ExitStack() as opened:
        journal = opened.enter_context(_journal(config.state_directory / JOURNAL_FILE, findings))
        identity, genesis = check_files(config, findings)
        show("reading the databases")
        ledger = opened.enter_context(_database(config.state_directory / STORE_FILE, _LEDGER, findings))
        signed = opened.enter_context(_database(config.state_directory / SIGNER_FILE, _SIGNED, findings))
        noted = opened.enter_context(_database(config.state_directory / NOTES_FILE, _NOTES, findings))
        entry = _genesis_entry(genesis, ledger, findings)
        keys = verifier_keys(identity, origin=_origin(entry), name=config.name)
        own = OwnCheckpoints(signed, name=config.name, keys=keys, findings=findings)
        history = History(journal, own, GatheredNotes(noted, findings=findings), findings=findings, show=show)
        if ledger is not None:
            history.check(ledger)
        elif entry is not None:
            history.check_without_ledger(entry)
        findings.figures["signed"] = own.size
        _check_ends(journal, own, findings)
        if identity is not None and ledger is not None and history.rules.size:
            check_membership(config.name, identity, history.rules.policy, findings)
    _check_blobs(config.state_directory / BLOBS_DIRECTORY, findings, show)
    _choose_remedies(findings)
    return findings


class _Database:
    """What a file should be."""

    def __init__(self, part: str, schema: str, version: int, remedy: str, *, is_needed: bool) -> None:
        self.part, self.schema, self.version, self.remedy, self.is_needed = part, schema, version, remedy, is_needed


_LEDGER = _Database(LEDGER, store.SCHEMA, store.VERSION, REBUILD, is_needed=True)
_SIGNED = _Database(SIGNED, signer.SCHEMA, signer.VERSION, NEW_IDENTITY, is_needed=True)
_NOTES = _Database(NOTES, notes.SCHEMA, notes.VERSION, DROP_NOTES, is_needed=False)


@contextmanager
def _database(path: Path, expected: _Database, findings: Findings) -> Iterator[sqlite3.Connection | None]:
    """Open a file that is sound as a database; None for another, which is among the findings then."""
    with ExitStack() as opened:
        connection = None
        try:
            connection = opened.enter_context(reading(path))
            found = faults(connection, schema=expected.schema, version=expected.version)
        except FileNotFoundError:
            found = ["missing"] if expected.is_needed else []
            connection = None
        except (sqlite3.Error, OSError) as error:
            if is_out_of_reach(error):
                raise out_of_reach(path, error) from error
            found = [str(error)]
        for fault in found:
            findings.add(expected.part, fault, expected.remedy)
        yield None if found else connection


@contextmanager
def _journal(path: Path, findings: Findings) -> Iterator[JournalReader | None]:
    """Open the journal, and keep the node from starting; None if there is none to read."""
    try:
        reader = JournalReader(path, is_exclusive=True)
    except FileNotFoundError:
        yield None
        return
    except JournalCorruptError as error:
        findings.add(JOURNAL, str(error), NEW_IDENTITY)
        yield None
        return
    except JournalBusyError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise out_of_reach(path, error) from error
    except ValueError as error:  # mmap of an empty file
        findings.add(JOURNAL, str(error), NEW_IDENTITY)
        yield None
        return
    with reader:
        findings.figures["journal"] = reader.last_index
        if reader.torn_bytes:
            findings.remarks.append(f"{JOURNAL}: {reader.torn_bytes} bytes of a torn write, cut off at the next start")
        yield reader


def _genesis_entry(genesis: bytes | None, ledger: sqlite3.Connection | None, findings: Findings) -> bytes | None:
    """Entry 0, from the ledger or else as it was made from the genesis; checked against the file."""
    if ledger is not None:
        row = ledger.execute("SELECT entry FROM entries WHERE position = 0").fetchone()
        if row is not None and genesis is not None and _envelope(row[0]) not in {None, genesis}:
            findings.add(
                GENESIS, "not the genesis of the ledger that is stored", "copy it from another node's directory"
            )
        return row[0] if row is not None and isinstance(row[0], bytes) else None
    if genesis is None:
        return None
    try:
        return Entry(genesis, unseal(genesis, origin=None).message.time_s).encode()
    except RegistryError as error:
        findings.add(GENESIS, str(error), "copy it from another node's directory")
        return None


def _envelope(entry: object) -> bytes | None:
    try:
        return Entry.decode(entry).envelope if isinstance(entry, bytes) else None
    except RegistryError:
        return None


def _origin(entry: bytes | None) -> str:
    envelope = _envelope(entry)
    if envelope is None:
        return ""
    try:
        return str(getattr(unseal(envelope, origin=None).message, "origin", ""))
    except RegistryError:
        return ""


def _check_ends(journal: JournalReader | None, own: OwnCheckpoints, findings: Findings) -> None:
    """Check that the journal reaches as far as what follows from it."""
    applied_index = findings.figures.get("applied_index", 0)
    if journal is None:
        if not findings.has(JOURNAL) and (applied_index or own.size > 1):
            findings.add(JOURNAL, "missing", NEW_IDENTITY)
        return
    reached = max(applied_index, journal.hard_state.commit_index)
    if reached > journal.last_index:
        what = f"{journal.last_index} entries, but {reached} were committed: its end is lost"
        findings.add(JOURNAL, what, NEW_IDENTITY)


def _check_blobs(directory: Path, findings: Findings, show: Show) -> None:
    """Check that every upload is the file that its name says."""
    count = 0
    for path in sorted(directory.glob("[0-9a-f]" * 64)):
        show(f"uploads: {path.name[:16]}…")
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
        except OSError as error:
            findings.add(f"state/{BLOBS_DIRECTORY}", str(error), "check the disk")
        else:
            if digest.hexdigest() != path.name:
                what = f"{path.name} holds another content than its name says"
                findings.add(f"state/{BLOBS_DIRECTORY}", what, "delete it; its owner or another node has it")
        count += 1
    findings.figures["uploads"] = count


def _choose_remedies(findings: Findings) -> None:
    """A ledger can be made anew only from a sound journal."""
    if findings.has(JOURNAL) or findings.has(SIGNED):
        findings.problems = [
            Problem(part=p.part, what=p.what, remedy=NEW_IDENTITY if p.remedy == REBUILD else p.remedy)
            for p in findings.problems
        ]
