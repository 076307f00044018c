"""No test reads or writes what the person who runs it has seen of ledgers."""

import secrets

import pytest


@pytest.fixture(autouse=True)
def home_of_its_own(tmp_path_factory, monkeypatch):
    """The state directory of each test; nothing is there before."""
    monkeypatch.setenv("WMREG_HOME", str(tmp_path_factory.getbasetemp() / f"home-{secrets.token_hex(8)}"))
