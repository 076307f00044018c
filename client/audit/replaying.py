"""The replay of a mirrored ledger, with the signatures verified on all cores.

Nearly all of a replay's time goes into Ed25519. The rules are applied in this process, in order, and take each
signature on trust for the moment; worker processes verify them in batches behind it. Only when every one of them held
does the replay count. Otherwise, or when a worker dies, it is thrown away and made again with every signature verified
in its place, which names the first entry that the rules refuse.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from client.audit.verifying import Verifiers
from registry.audit import Replay

Result = TypeVar("Result")
PARALLEL_ENTRIES_MIN = 2000  # below it the workers' start costs more than they save


def replay_entries(read: Callable[[], Iterator[bytes]], size: int, examine: Callable[[Replay], Result]) -> Result:
    """Replay the entries of a ledger, and examine what comes out.

    Args:
        read: reads them from entry 0 on; called again when a signature does not hold.
        size: about how many there are.
        examine: looks at the replayed ledger, and does nothing that has to be undone: it is called while the last
            signatures are verified, and once more when one of them does not hold.

    Returns:
        What `examine` made of the ledger whose signatures hold.
    """
    with without_garbage_collection():
        return _replay(read, size, examine)


def _replay(read: Callable[[], Iterator[bytes]], size: int, examine: Callable[[Replay], Result]) -> Result:
    cores = _cores()
    if size >= PARALLEL_ENTRIES_MIN and cores > 1:
        with Verifiers(cores) as verifiers:
            state = Replay(verifiers.is_signed)
            for raw in read():
                state.take(raw)
                if verifiers.has_failed:
                    break
            else:
                verifiers.send_all()
                result = examine(state)
                if verifiers.all_hold():
                    return result
    state = Replay()
    for raw in read():
        state.take(raw)
    return examine(state)


def _cores() -> int:
    """Cores that this process may use; systems other than Linux tell only how many there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Look for no reference cycles: an audit makes next to none, and a million live objects take long to search."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
