"""Verified receipts take bounded memory, and only the policy that verified one gets it back."""

import pytest

from node import receipts
from node.receipts import VerifiedReceipts
from registry.policy import Policy


def test_a_receipt_is_for_the_very_policy_that_verified_it():
    kept, policy, other = VerifiedReceipts(), Policy(members=(), quorum=1), Policy(members=(), quorum=1)
    kept.put(7, policy, "seven")
    assert kept.get(7, policy) == "seven"
    assert kept.get(7, other) is None
    assert kept.get(8, policy) is None


def test_the_least_recently_read_go_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(receipts, "BYTES_MAX", 30)
    kept, policy = VerifiedReceipts(), Policy(members=(), quorum=1)
    for index in range(3):
        kept.put(index, policy, "x" * 10)
    kept.put(1, policy, "y" * 10)
    kept.get(0, policy)
    kept.put(3, policy, "x" * 15)
    assert [kept.get(index, policy) is not None for index in range(4)] == [True, False, False, True]
