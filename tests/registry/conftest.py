"""What several tests of the rules need."""

import pytest
from fakes import LedgerMaker


@pytest.fixture
def maker() -> LedgerMaker:
    """A ledger of three nodes that holds its genesis."""
    return LedgerMaker()
