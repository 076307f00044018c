"""What a node checks of itself before it listens: the cheap part of fsck, on the files that it has just opened.

The store has replayed every entry already, so what is left is whether the files belong together. Databases of another
version, keys that others may read and keys of another node are refused where they are read.
"""

import os
from pathlib import Path

from node.config import Config
from node.errors import ConfigError, InconsistentStateError
from node.identity import check_directory
from node.init import JOURNAL_FILE, NOTES_FILE, SIGNER_FILE, STORE_FILE
from node.raft import JournalError, JournalReader
from node.reach import REMEDY, is_out_of_reach, out_of_reach
from node.signer import Signer
from node.store import Store
from node.upkeep.findings import NEW_IDENTITY

_STATE_FILES = (STORE_FILE, SIGNER_FILE, JOURNAL_FILE, NOTES_FILE)


def check_reach(directory: Path, *, is_read_only: bool = False) -> None:
    """Check that a state directory is a node's, and that its files can be read and written.

    Args:
        directory: of the state.
        is_read_only: whether it is enough to read them.

    Raises:
        ConfigError: it is not there, holds no state at all, or is not this process's to use.
    """
    try:
        found = {path.name for path in directory.iterdir()}
    except OSError as error:
        raise out_of_reach(directory, error) from error
    held = [name for name in _STATE_FILES if name in found]
    if not held:
        message = f"{directory}: holds no state of a node ({STORE_FILE}, {SIGNER_FILE}, {JOURNAL_FILE}); {REMEDY}"
        raise ConfigError(message)
    wanted = os.R_OK if is_read_only else os.R_OK | os.W_OK
    for path in (directory, *(directory / name for name in held)):
        if not os.access(path, wanted | os.X_OK if path is directory else wanted):
            raise ConfigError(f"{path}: {_why_not(directory, is_read_only=is_read_only)}; {REMEDY}")


def check_state(config: Config, store: Store, signer: Signer) -> None:
    """Compare ledger, signed checkpoints and journal with each other.

    Raises:
        ConfigError: others may write to the state directory.
        InconsistentStateError: the parts contradict each other; says which, and the way out.
    """
    check_directory(config.state_directory)
    try:
        signer.check(store.size, store.read_node, former_keys=store.keys_of(config.name))
    except InconsistentStateError as error:
        raise InconsistentStateError(f"{error}; `wmreg node fsck` says more, and the way out") from error
    if signer.size > store.size:
        _check_completes(config, store, signer)


def _check_completes(config: Config, store: Store, signer: Signer) -> None:
    """What was signed and is not in the ledger is in the journal; each entry of the one takes one of the other."""
    path = config.state_directory / JOURNAL_FILE
    missing = signer.size - store.size
    try:
        with JournalReader(path, is_exclusive=False) as journal:
            held = journal.last_index - store.applied_index
    except FileNotFoundError:
        held = 0
    except (JournalError, OSError, ValueError) as error:
        if isinstance(error, OSError) and is_out_of_reach(error):
            raise out_of_reach(path, error) from error
        raise InconsistentStateError(f"{path}: {error}; `wmreg node fsck` says more") from error
    if held < missing:
        raise InconsistentStateError(
            f"this node signed {signer.size} entries, its ledger holds {store.size} and {path} {held} more: entries "
            f"that it acknowledged are lost; {NEW_IDENTITY}"
        )


def _why_not(directory: Path, *, is_read_only: bool) -> str:
    if not is_read_only and os.statvfs(directory).f_flag & os.ST_RDONLY:
        return "its file system is mounted read-only"
    return f"user {os.geteuid()} may not {'read' if is_read_only else 'read and write'} it"
