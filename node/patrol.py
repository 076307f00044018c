"""What a node signed long ago is read again, after each start and once a day: disks forget.

The start checks the last checkpoint alone, since all would take as long again as the ledger's own replay. SQLite
has no checksums, so a flipped bit in an old signature would be served until somebody verifies it; that somebody is this
node first. What is found ends the patrol, which makes the node unhealthy until a person has run fsck.
"""

import asyncio
import logging
import sqlite3
import threading
import time
from pathlib import Path

from node.errors import InconsistentStateError
from node.logs import fields
from node.signer import Signer
from node.store import Store
from node.upkeep.findings import NEW_IDENTITY, Findings
from node.upkeep.readonly import reading
from node.upkeep.signed import SIGNED, OwnCheckpoints
from registry.checkpoint import Checkpoint

PERIOD_S = 86400.0
BATCH, PAUSE_S = 64, 0.02  # about half a core while it lasts

logger = logging.getLogger(__name__)


class Patrol:
    """Reads this node's own signed checkpoints.

    Args:
        path: of their file.
        name: the node's.
        store: the ledger that they are on.
        signer: says how many there are, and of which keys.
    """

    def __init__(self, path: Path, *, name: str, store: Store, signer: Signer) -> None:
        self._path, self._name, self._store, self._signer = path, name, store, signer
        self._stopping = threading.Event()

    async def run(self) -> None:
        """Read everything, again and again.

        Raises:
            InconsistentStateError: something is not what was signed.
        """
        try:
            while True:
                await asyncio.to_thread(self._read)
                await asyncio.sleep(PERIOD_S)
        finally:
            self._stopping.set()

    def _read(self) -> None:
        findings, keys = Findings(), self._signer.keys | self._store.keys_of(self._name)
        size, origin, policy = min(self._signer.size, self._store.size), self._store.origin, self._store.policy
        try:
            with reading(self._path, is_live=True) as connection:
                own = OwnCheckpoints(connection, name=self._name, keys=keys, findings=findings)
                for number in range(1, size + 1):
                    own.reach(Checkpoint(origin=origin, size=number, root=self._store.root(number)), policy)
                    if findings.problems or self._stopping.is_set():
                        break
                    if number % BATCH == 0:
                        time.sleep(PAUSE_S)
        except (OSError, sqlite3.Error) as error:
            findings.add(SIGNED, repr(error), NEW_IDENTITY)
        logger.info("own checkpoints read", extra=fields(size=size, problems=len(findings.problems)))
        if findings.problems:
            problem = findings.problems[0]
            raise InconsistentStateError(f"{problem.part}: {problem.what}; stop the node and run `wmreg node fsck`")
