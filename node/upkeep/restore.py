"""A new member with the history of a backup, and a ledger made anew from its node's own journal.

Why the old identity does not come back from a backup, however recent it is:

* Acknowledged entries. Of three nodes A, B, R, the leader A and R have stored an entry and acknowledged it; B has not
  heard of it. R comes back from a copy without it, A is cut off: B and R are a majority, elect B, overwrite the entry.
* Votes. R has voted for A in term 8, comes back without that vote and votes for B in term 8: two leaders in one term.
  It does not help that R stays silent until it sees a higher term, since nobody can tell R which vote of its own is
  still on the way; and it does nothing about the first point.
* Asking the others for what R has promised, as the recovery of Viewstamped Replication Revisited (section 4.3) does,
  looks sound and is not: Michael et al., "Recovering Shared Objects Without Stable Storage", DISC 2017. Its repair,
  counts of every node's crashes in the messages, would be another consensus protocol than the one that was tested.
* Signed checkpoints. What R signed after the copy was made is known to those who asked R for it, and they need not be
  the ones that R could ask now.

Raft itself holds no answer either: it tolerates nodes that stop, not nodes that forget (Ongaro, "Consensus: Bridging
Theory and Practice", section 3.8: term, vote and log are durable before an answer leaves). A member that is new has
promised nothing, so it cannot break a promise: new name, new keys, admitted by a change of the policy; another one
retires the lost node, whose quorum then ignores what it may still have said. Before the new member signs anything, a
quorum of the others must have signed the tree that it has (node/joining.py).

Only the ledger is different. It promises nothing, it follows from the journal. Where the journal and the signed
checkpoints are whole, `rebuild` makes it anew under the same identity.
"""

import os
import shutil
import sqlite3
import time
from pathlib import Path

from node.config import Config
from node.durable import sync_directory
from node.errors import ConfigError, InconsistentStateError
from node.identity import load_identity, public_bytes
from node.init import JOURNAL_FILE, NOTES_FILE, SIGNER_FILE, STORE_FILE
from node.raft import JournalError, JournalReader
from node.store import Store
from node.upkeep.backup import COPIED_JOURNAL_FILE, check_copy
from node.upkeep.findings import REBUILD, Show
from node.upkeep.fsck import examine
from node.upkeep.history import LEDGER, History
from node.upkeep.manifest import Manifest
from node.upkeep.readonly import reading
from registry.entry import Entry
from registry.envelope import unseal
from registry.messages import Genesis, PolicyChange
from registry.policy import Member


def restore(backup: Path, config: Config, *, show: Show = lambda _text: None) -> Manifest:
    """Give a new node, which has not run yet, the history of a backup to begin with.

    Args:
        backup: what back_up wrote.
        config: settings of the node that `wmreg node init` made; its name and keys are new in the ledger.
        show: tells what is being done.

    Returns:
        What the backup was of.

    Raises:
        ConfigError: a damaged backup, or of another ledger; a node that has state of its own; a name or a key that a
            member had. Nothing was changed.
        InconsistentStateError: the backup contradicts itself.
    """
    _check_untouched(config)
    manifest = Manifest.load(backup)
    show("checking the backup's files")
    manifest.check_files(backup)
    try:
        history = check_copy(backup, show=show)
    except (OSError, sqlite3.Error, JournalError) as error:
        raise ConfigError(f"{backup}: {error}; use another backup") from error
    if (history.rules.size, history.root.hex()) != (manifest.size, manifest.root):
        raise InconsistentStateError(f"{backup}: not the ledger that the manifest names; use another backup")
    _check_genesis(backup, config)
    _check_new(config, history)
    # In this order: with the journal alone, the node would make the ledger from it, as after `rebuild`.
    for source, name in ((COPIED_JOURNAL_FILE, JOURNAL_FILE), (NOTES_FILE, NOTES_FILE), (STORE_FILE, STORE_FILE)):
        _put(backup / source, config.state_directory / name)
    return manifest


def rebuild(config: Config, *, show: Show = lambda _text: None) -> Path:
    """Set a damaged ledger.db aside and put a new one in its place, which the node fills from its journal.

    Returns:
        Where the damaged file is; the path of the new one if there was none.

    Raises:
        ConfigError: the node runs, its ledger is sound, or something else is wrong that must be mended before.
    """
    findings = examine(config, show=show)
    others = [problem for problem in findings.problems if (problem.part, problem.remedy) != (LEDGER, REBUILD)]
    if others:
        raise ConfigError(f"{others[0].part}: {others[0].what}; the ledger cannot be made anew: {others[0].remedy}")
    path = config.state_directory / STORE_FILE
    if not findings.problems:
        raise ConfigError(f"{path}: sound; nothing was done")
    with JournalReader(config.state_directory / JOURNAL_FILE, is_exclusive=True):
        damaged = path.with_name(f"{path.name}.damaged-{int(time.time())}")
        for suffix in ("-wal", "-shm", ""):
            if path.with_name(path.name + suffix).exists():
                path.with_name(path.name + suffix).rename(damaged.with_name(damaged.name + suffix))
        genesis = config.genesis.read_bytes()
        Store.create(path, genesis_entry=Entry(genesis, unseal(genesis, origin=None).message.time_s).encode())
    return damaged if damaged.exists() else path


def _check_untouched(config: Config) -> None:
    """Check that a node has promised nothing and stored nothing: it is as `wmreg node init` made it."""
    state = config.state_directory
    used = ConfigError(
        f"{state}: has state already; a backup is restored into a node that wmreg node init has just made"
    )
    if {path.name for path in state.iterdir()} != {STORE_FILE, SIGNER_FILE}:
        raise used
    try:
        with reading(state / STORE_FILE) as ledger, reading(state / SIGNER_FILE) as signed:
            (entries,) = ledger.execute("SELECT count(*) FROM entries").fetchone()
            (checkpoints,) = signed.execute("SELECT count(*) FROM checkpoints").fetchone()
    except sqlite3.Error as error:
        raise used from error
    if (entries, checkpoints) != (1, 0):
        raise used


def _check_genesis(backup: Path, config: Config) -> None:
    with reading(backup / STORE_FILE) as theirs, reading(config.state_directory / STORE_FILE) as ours:
        first = [files.execute("SELECT entry FROM entries WHERE position = 0").fetchone() for files in (theirs, ours)]
    if first[0] != first[1]:
        raise ConfigError(f"{backup}: of another ledger than the node in {config.state_directory.parent}")


def _check_new(config: Config, history: History) -> None:
    """Check that no member ever had the node's name or one of its keys."""
    identity = load_identity(config.keys)
    keys = {public_bytes(key) for key in (identity.signing, identity.note, identity.cosigner)}
    for member in _members(history):
        if member.name == config.name or keys & {member.signing_key, member.note_key, member.cosigner_key}:
            raise ConfigError(
                f"{config.name} is, or was, the member {member.name} of {history.rules.origin}. A node that lost its "
                "state must not come back as itself: it could forget what it acknowledged, vote twice or sign a second "
                "history. Make a new one with wmreg node init, under another name"
            )


def _members(history: History) -> list[Member]:
    placed = [history.rules.find(digest) for digest in history.rules.policy_hashes]
    messages = [found.signed.message for found in placed if found is not None]
    policies = [message.policy for message in messages if isinstance(message, Genesis | PolicyChange)]
    return [member for policy in policies for member in policy.members]


def _put(source: Path, target: Path) -> None:
    """Copy a file into its place as a whole."""
    building = target.with_name(target.name + ".new")
    shutil.copyfile(source, building)
    with building.open("rb+") as file:
        os.fsync(file.fileno())
    building.replace(target)
    sync_directory(target.parent)
