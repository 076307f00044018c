"""Names that survive a power cut: a file is there for good only when its directory was written too.

Source: fsync(2), "an explicit fsync() on a file descriptor for the directory is also needed".
"""

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Write a directory's names to the disk; blocks."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
