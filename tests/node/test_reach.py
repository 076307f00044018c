"""What the file system does not give is the operator's to mend; what was read and does not hold is damage."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from node.errors import ConfigError, InconsistentStateError
from node.reach import unusable
from node.upkeep import startup
from node.upkeep.startup import check_reach

PATH = Path("/srv/node/state/ledger.db")


def failed(code: int, message: str) -> sqlite3.Error:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (failed(sqlite3.SQLITE_READONLY, "attempt to write a readonly database"), "attempt to write a readonly"),
        (failed(sqlite3.SQLITE_READONLY_DIRECTORY, "attempt to write a readonly database"), "attempt to write"),
        (failed(sqlite3.SQLITE_IOERR_READ, "disk I/O error"), "disk I/O error"),
        (PermissionError(errno.EACCES, "Permission denied", str(PATH)), "Permission denied; "),
        (OSError(errno.EROFS, "Read-only file system", str(PATH)), "Read-only file system; "),
    ],
)
def test_a_file_that_is_out_of_reach_is_a_wrong_setting(error: OSError | sqlite3.Error, told: str):
    found = unusable(PATH, error, remedy="keep the files for inquiry")
    assert isinstance(found, ConfigError)
    assert str(found).startswith(f"{PATH}: {told}")
    assert "`state_directory`" in str(found)
    assert "inquiry" not in str(found)
    assert "Error(" not in str(found)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (failed(sqlite3.SQLITE_CORRUPT, "database disk image is malformed"), "database disk image is malformed"),
        (failed(sqlite3.SQLITE_IOERR_CORRUPTFS, "disk I/O error"), "disk I/O error"),
        (sqlite3.DatabaseError("tables of version 9"), "tables of version 9"),
        (FileNotFoundError(PATH), "missing"),
        (TypeError("'NoneType' object is not subscriptable"), "a row is missing"),
    ],
)
def test_a_file_that_does_not_hold_is_damage(error: OSError | sqlite3.Error | TypeError, told: str):
    found = unusable(PATH, error, remedy="keep the files for inquiry")
    assert isinstance(found, InconsistentStateError)
    assert str(found).startswith(f"{PATH}: {told}")
    assert str(found).endswith("; keep the files for inquiry")
    assert "state_directory" not in str(found)


def test_a_directory_that_may_only_be_read_is_enough_to_check_it_and_not_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "ledger.db").touch()
    monkeypatch.setattr(startup.os, "access", lambda _path, wanted: not wanted & os.W_OK)
    check_reach(tmp_path, is_read_only=True)
    with pytest.raises(ConfigError, match=r"may not read and write it; `state_directory`"):
        check_reach(tmp_path)
