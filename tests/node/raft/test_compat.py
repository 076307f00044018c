"""Promised: only the PySyncObj that was studied is accepted, and nothing in it can unpickle."""

import hashlib
import subprocess
import sys
import textwrap
from pathlib import Path

import pysyncobj.journal
import pysyncobj.pickle
import pysyncobj.syncobj
import pysyncobj.version
import pytest

from node.raft import compat
from node.raft.failstop import EXIT_SOFTWARE

STUDIED_SHA256 = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"


def test_the_installed_source_is_the_one_that_was_studied():
    source = Path(pysyncobj.syncobj.__file__).read_bytes()
    assert hashlib.sha256(source).hexdigest() == STUDIED_SHA256


def test_the_installed_version_is_accepted():
    compat._check_installed_version()


def test_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(pysyncobj.version, "VERSION", "0.3.18")
    with pytest.raises(compat.UnsupportedPySyncObjError, match=r"0\.3\.18 is installed, 0\.3\.17 is needed"):
        compat._check_installed_version()


def test_a_missing_method_is_refused(monkeypatch):
    monkeypatch.delattr(pysyncobj.syncobj.SyncObj, "_SyncObj__sendAppendEntries")
    with pytest.raises(compat.UnsupportedPySyncObjError, match="__sendAppendEntries"):
        compat._check_installed_version()


def test_a_missing_field_is_refused(monkeypatch):
    monkeypatch.setattr(compat.SyncObjFields, "surprise", compat._Field("__notThere"), raising=False)
    with pytest.raises(compat.UnsupportedPySyncObjError, match="__notThere"):
        compat._check_installed_version()


def test_a_method_that_is_not_on_the_list_cannot_be_replaced():
    with pytest.raises(ValueError, match="__onReadonlyNodeConnected"):
        compat.replaces("__onReadonlyNodeConnected")


@pytest.mark.parametrize("name", ["load", "loads", "dump", "dumps"])
def test_pysyncobj_cannot_pickle(name):
    with pytest.raises(RuntimeError, match="taken out"):
        getattr(pysyncobj.pickle, name)(b"\x80\x02N.")


@pytest.mark.parametrize("name", ["loads", "dumps"])
def test_its_journal_cannot_either(name):
    with pytest.raises(RuntimeError, match="taken out"):
        getattr(pysyncobj.journal, name)(b"\x80\x02N.")


def run(program: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_guard_ends_the_process_at_the_first_class_that_is_unpickled():
    done = run("""
        import pickle
        from node.raft import install_unpickling_guard
        data = pickle.dumps(print)
        pickle.loads(data)
        install_unpickling_guard()
        print("guarded", flush=True)
        pickle.loads(data)
        print("still alive", flush=True)
    """)
    assert done.returncode == EXIT_SOFTWARE
    assert done.stdout == "guarded\n"
    assert "tried to unpickle a class" in done.stderr


def test_the_package_imports_neither_torch_nor_aiohttp():
    done = run("""
        import sys
        import node.raft
        print(sorted({"torch", "aiohttp"} & set(sys.modules)))
    """)
    assert done.stdout == "[]\n"
