"""A node knows for how long it has been behind, and growth alone is no lag."""

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from nodeset import STATUS, NodeSet, publication

from node import watch as watch_module
from node.watch import Lag, Watch


def test_a_goal_that_is_not_reached_is_late_from_the_first_look_on():
    lag = Lag()
    lag.observe(goal=5, reached=5, now_s=10)
    assert lag.late_s(11) == 0
    lag.observe(goal=6, reached=5, now_s=12)
    lag.observe(goal=9, reached=5, now_s=13)
    assert lag.late_s(15) == 3


def test_what_keeps_up_with_a_moving_goal_is_not_late():
    lag = Lag()
    for second in range(100):
        lag.observe(goal=10 * second + 10, reached=10 * second, now_s=second)
        assert lag.late_s(second) <= 1


def test_what_was_reached_in_the_end_is_late_no_longer():
    lag = Lag()
    lag.observe(goal=6, reached=5, now_s=0)
    lag.observe(goal=6, reached=6, now_s=60)
    assert lag.late_s(61) == 0


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def test_the_steps_of_a_node_are_watched_apart(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        node, clock, raft = nodes.nodes[0], Clock(), STATUS
        watch = Watch(node.ledger, node.services.gatherer, lambda: raft, clock=clock)
        raft = dataclasses.replace(STATUS, commit_index=7, applied_index=6)
        await node.ledger.submit(publication(), timeout_s=5)
        assert await node.ledger.signed.wait_for(2, 30)
        watch.lags_s()
        clock.now_s = 20
        assert watch.lags_s() == {"applied": 20, "signed": 0, "cosigned": 20}
        await nodes.serve()
        await node.services.gatherer.quorum_note(2, timeout_s=30)
        raft = dataclasses.replace(STATUS, commit_index=7, applied_index=7)
        assert watch.lags_s() == {"applied": 0, "signed": 0, "cosigned": 0}


async def test_entries_are_cosigned_though_nobody_asks_and_again_when_the_peers_are_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch_module, "PERIOD_S", 0.01)
    monkeypatch.setattr(watch_module, "GATHER_TIMEOUT_S", 0.05)
    async with NodeSet(tmp_path / "ledger") as nodes:
        node = nodes.nodes[0]
        task = asyncio.create_task(node.services.watch.run())
        await node.ledger.submit(publication(), timeout_s=5)
        await until(lambda: node.services.watch.lags_s()["cosigned"] > 0.2)
        assert node.services.gatherer.latest is None
        await nodes.serve()
        await until(lambda: node.services.gatherer.latest_size == 2)
        await node.ledger.submit(publication(number=1), timeout_s=5)
        await until(lambda: node.services.gatherer.latest_size == 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object], *, timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)
