"""A directory that is there as a whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def built_whole(target: Path, *, prefix: str, last: str) -> Iterator[Path]:
    """Give a directory beside the target, or in it, to build in; it becomes the target when the block ends well.

    Args:
        target: an absolute path; does not exist, or is empty.
        prefix: of the temporary name.
        last: the file that says that all of it is there, moved after the others.

    Raises:
        OSError: there is no place for it, naming the target; or what the block raises. Nothing is left then.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=prefix, dir=target if target.exists() else target.parent))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    try:
        yield building
        _put_in_place(building, target, last)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _put_in_place(building: Path, target: Path, last: str) -> None:
    if building.parent != target:
        building.chmod(0o755)
        building.replace(target)
        return
    for path in sorted(building.iterdir(), key=lambda path: path.name == last):
        path.replace(target / path.name)
    building.rmdir()
