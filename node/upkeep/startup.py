"""What a node checks of itself before it listens: the cheap part of fsck, on the files that it has just opened.

The store has replayed every entry already, so what is left is whether the files belong together. Databases of another
version, keys that others may read and keys of another node are refused where they are read.
"""

from node.config import Config
from node.errors import InconsistentStateError
from node.identity import check_directory
from node.init import JOURNAL_FILE
from node.raft import JournalError, JournalReader
from node.signer import Signer
from node.store import Store
from node.upkeep.findings import NEW_IDENTITY


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
        raise InconsistentStateError(f"{path}: {error}; `wmreg node fsck` says more") from error
    if held < missing:
        raise InconsistentStateError(
            f"this node signed {signer.size} entries, its ledger holds {store.size} and {path} {held} more: entries "
            f"that it acknowledged are lost; {NEW_IDENTITY}"
        )
