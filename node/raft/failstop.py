"""Stopping at once when going on could break a promise.

A failed fsync or a half-applied batch leaves a state that no code can reason about: the kernel may have dropped the
dirty pages, so that a second fsync "succeeds" without them. The only safe answer is to stop before anything else
leaves the process, and to let the supervisor start it again from what is durable.

Source: Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020, section 5.
"""

import logging
import os
import sys
from typing import NoReturn

EXIT_SOFTWARE = 70  # sysexits.h EX_SOFTWARE: a command could not be applied, or the consensus code failed
EXIT_STORAGE = 74  # sysexits.h EX_IOERR: the journal could not be written or read

logger = logging.getLogger(__name__)


def fail_stop(reason: str, *, exit_code: int) -> NoReturn:
    """End the process without running any handler, after one line in the log.

    Args:
        reason: what failed, for the operator. The exception being handled is logged with it.
        exit_code: EXIT_SOFTWARE or EXIT_STORAGE.
    """
    logger.critical("fail-stop: %s", reason, exc_info=sys.exception())
    os._exit(exit_code)
