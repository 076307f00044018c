"""A new member from the backup of an old one, and a ledger made anew from its node's own journal.

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
promised nothing, so it cannot break a promise: new name, new keys, admitted by a policy entry that retires the old one,
whose quorum ignores what the lost node may still have said. Until it has proved that its tree is the one that a quorum
signs, it signs nothing (node/proving.py).

Only the ledger is different. It promises nothing, it follows from the journal. Where the journal and the signed
checkpoints are whole, `rebuild` makes it anew under the same identity.
"""

import re
import shutil
import sqlite3
import time
from pathlib import Path
from tempfile import mkdtemp

from node.config import Config, load_config
from node.durable import sync_directory
from node.errors import ConfigError, InconsistentStateError
from node.identity import make_identity
from node.init import CONFIG_FILE, GENESIS_FILE, JOURNAL_FILE, NOTES_FILE, SIGNER_FILE, STORE_FILE
from node.proving import mark_unproven
from node.raft import JournalError, JournalReader
from node.signer import Signer
from node.store import Store
from node.upkeep.backup import COPIED_JOURNAL_FILE, check_copy
from node.upkeep.findings import REBUILD, Show
from node.upkeep.fsck import examine
from node.upkeep.history import LEDGER, History
from node.upkeep.manifest import Manifest
from registry.entry import Entry
from registry.envelope import unseal
from registry.messages import Genesis, PolicyChange

_NAME_LINE = re.compile(r'^name = "[^"\n]*"$', re.MULTILINE)


def restore(backup: Path, directory: Path, *, name: str, show: Show = lambda _text: None) -> Config:
    """Make the directory of a new member that begins with the history of a backup.

    Args:
        backup: what back_up wrote.
        directory: must not exist, or be empty.
        name: of the new member; no member of the ledger ever had it.
        show: tells what is being done.

    Returns:
        The new member's settings. Its keys are new; a policy entry has to admit them.

    Raises:
        ConfigError: a damaged backup, a directory in use, a name that was used. Nothing is left.
        InconsistentStateError: the backup contradicts itself.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory}: exists and is not empty; what a node has promised must not be overwritten")
    manifest = Manifest.load(backup)
    show("checking the backup's files")
    manifest.check_files(backup)
    try:
        history = check_copy(backup, show=show)
    except (OSError, sqlite3.Error, JournalError) as error:
        raise ConfigError(f"{backup}: {error}; use another backup") from error
    if (history.rules.size, history.root.hex()) != (manifest.size, manifest.root):
        raise InconsistentStateError(f"{backup}: not the ledger that the manifest names; use another backup")
    _check_name(name, history)
    directory.parent.mkdir(parents=True, exist_ok=True)
    building = Path(mkdtemp(prefix=".restore.", dir=directory.parent))
    try:
        _build(backup, building, name=name, manifest=manifest)
        findings = examine(load_config(building / CONFIG_FILE), show=show)
        if findings.problems:
            raise InconsistentStateError(f"{findings.problems[0].part}: {findings.problems[0].what}")
        building.rename(directory)
        sync_directory(directory.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return load_config(directory / CONFIG_FILE)


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


def _check_name(name: str, history: History) -> None:
    placed = [history.rules.find(digest) for digest in history.rules.policy_hashes]
    messages = [found.signed.message for found in placed if found is not None]
    policies = [message.policy for message in messages if isinstance(message, Genesis | PolicyChange)]
    if any(member.name == name for policy in policies for member in policy.members):
        raise ConfigError(
            f"{name} is, or was, a member of {history.rules.origin}. A node that lost its state must not come back "
            "under its name: it could forget what it acknowledged, vote twice or sign a second history. Choose a new "
            "--name"
        )


def _build(backup: Path, building: Path, *, name: str, manifest: Manifest) -> None:
    building.chmod(0o755)
    settings, count = _NAME_LINE.subn(f'name = "{name}"', (backup / CONFIG_FILE).read_text(encoding="utf-8"))
    (building / CONFIG_FILE).write_text(settings, encoding="utf-8")
    config = load_config(building / CONFIG_FILE)
    if count != 1 or config.name != name:
        raise ConfigError(f'{backup / CONFIG_FILE}: no line of its own that says name = "…"')
    keys = config.keys
    paths = [keys.signing, keys.note, keys.cosigner, keys.tls_private_key, keys.tls_certificate]
    for path in [config.genesis, config.state_directory, *paths]:
        if building.absolute() not in path.parents:
            raise ConfigError(f"{backup / CONFIG_FILE}: {path} is outside of the node's directory; restore it by hand")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_identity(keys, name=name)
    state = config.state_directory
    state.mkdir(mode=0o700)
    for source, target in (
        (GENESIS_FILE, config.genesis),
        (STORE_FILE, state / STORE_FILE),
        (NOTES_FILE, state / NOTES_FILE),
        (COPIED_JOURNAL_FILE, state / JOURNAL_FILE),
    ):
        shutil.copyfile(backup / source, target)
    Signer.create(state / SIGNER_FILE)
    mark_unproven(state, size=manifest.size)
