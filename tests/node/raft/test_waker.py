"""Promised: a wake-up ends the poll in progress or the next one, any number of them cost one, and none after close."""

import os
import threading
import time

import pytest
from pysyncobj.poller import createPoller

from node.raft.waker import Waker


@pytest.fixture
def poller():
    return createPoller("auto")


def polled_s(poller, wait_s: float) -> float:
    began_s = time.monotonic()
    poller.poll(wait_s)
    return time.monotonic() - began_s


def test_a_wake_up_before_the_poll_ends_it_at_once(poller):
    waker = Waker(poller)
    for _ in range(100_000):
        waker.wake()
    assert polled_s(poller, 30.0) < 10.0
    assert polled_s(poller, 0.01) >= 0.009
    waker.close()


def test_a_wake_up_from_another_thread_ends_the_poll(poller):
    waker = Waker(poller)
    waker.rearm()
    thread = threading.Thread(target=waker.wake)
    thread.start()
    assert polled_s(poller, 30.0) < 10.0
    thread.join()
    waker.close()


def test_it_wakes_again_once_it_is_rearmed(poller):
    waker = Waker(poller)
    waker.wake()
    poller.poll(0.0)
    waker.wake()
    assert polled_s(poller, 0.01) >= 0.009
    waker.rearm()
    waker.wake()
    assert polled_s(poller, 30.0) < 10.0
    waker.close()


def test_after_close_it_touches_no_descriptor(poller):
    waker = Waker(poller)
    waker.close()
    reused, other_end = os.pipe()  # takes the numbers that the waker has given back
    os.set_blocking(reused, False)
    waker.wake()
    with pytest.raises(BlockingIOError):
        os.read(reused, 1)
    os.close(reused)
    os.close(other_end)
