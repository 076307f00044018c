"""Promised: everything that wm exports exists."""

import wm


def test_every_exported_name_exists() -> None:
    assert all(hasattr(wm, name) for name in wm.__all__)
    assert wm.__all__ == sorted(wm.__all__, key=str)
