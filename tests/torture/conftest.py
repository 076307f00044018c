"""What the torture tests measured, printed at the end and kept as bench/results/torture.json."""

import os
from collections.abc import Iterator

import pytest
from torture.measured import Measured


@pytest.fixture(scope="session")
def measured() -> Iterator[Measured]:
    """The figures of this run; WMREG_TORTURE_KEEP=1 writes them down."""
    measured = Measured()
    yield measured
    measured.write(keep=os.environ.get("WMREG_TORTURE_KEEP") == "1")
