"""What the benches that send requests share: clients that wait for their answers, rows with a median and a spread."""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from bench.results import Row

Goal = tuple[str, Callable[[float], bool]]


@dataclass(slots=True)
class Samples:
    """What clients measured in one stretch of time."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def per_s(self) -> float:
        """Finished requests a second."""
        return len(self.latencies_ms) / self.seconds

    def percentile(self, percent: int) -> float:
        """A percentile of the latencies, ms."""
        return statistics.quantiles(self.latencies_ms, n=100)[percent - 1]


async def drive(one: Callable[[int], Awaitable[None]], clients: int, seconds: float) -> Samples:
    """Let clients repeat a request for a while, each waiting for its answer."""
    samples, begun = Samples(), time.perf_counter()

    async def client(number: int) -> None:
        while (sent := time.perf_counter()) < begun + seconds:
            await one(number)
            samples.latencies_ms.append(1000 * (time.perf_counter() - sent))

    await asyncio.gather(*(client(number) for number in range(clients)))
    samples.seconds = time.perf_counter() - begun
    return samples


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections that are kept open, one for each client and node."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as http:
        yield http


async def until_true(condition: Callable[[], Awaitable[bool]], timeout_s: float, what: str) -> None:
    """Poll a condition of another process; TimeoutError when it does not come."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 -- of another process
            await asyncio.sleep(0.1)
    print(f"{what}: up", file=sys.stderr)


def row(metric: str, values: Sequence[float], unit: str, goal: Goal | None = None) -> Row:
    """Median and spread; the median decides about a goal."""
    median = statistics.median(values)
    return Row(
        metric=metric,
        value=float(f"{median:.4g}"),
        unit=unit,
        spread=(float(f"{min(values):.4g}"), float(f"{max(values):.4g}")),
        goal=goal[0] if goal else None,
        met=goal[1](median) if goal else None,
    )
