"""Promised: without an extra, its callback says which one to install, and all else works."""

import importlib.util
import sys
from pathlib import Path

import pytest

import wm.integrations


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("lightning", "lightning", r"pip install 'wmreg\[lightning\]'"),
        ("transformers", "transformers", r"pip install 'wmreg\[transformers\]'"),
        ("transformers", "accelerate", r"pip install 'wmreg\[transformers\]'"),
    ],
)
def test_a_missing_extra_is_named(name: str, missing: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    path = Path(wm.integrations.__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location("without_its_extra", path)
    with pytest.raises(ImportError, match=message):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
