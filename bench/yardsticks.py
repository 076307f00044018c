"""What the ledger is measured against, in the same run: etcd, and PySyncObj as it is.

Neither signs or proves anything, so they are yardsticks for the machine and no rivals. etcd (Debian: etcd-server) takes
values of the same size from the same clients; three nodes with their defaults, which sync every write. PySyncObj is
the bare library with its journal flushed at each entry, as durable as the ledger, fed by the leader's own process with
so many commands in flight (bench.consensus).
"""

import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench import consensus
from bench.clients import drive, row, session, until_true
from bench.results import Row
from client.demo.shell import stop
from node.ports import free_ports

MEMBERS, START_TIMEOUT_S = 3, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """What another system did with one client, or command in flight, and with many.

    Attributes:
        alone_ms: median latency of one.
        together_per_s: rate of all.
    """

    name: str
    rows: Sequence[Row]
    alone_ms: float
    together_per_s: float

    def ratios(self, *, alone_ms: float, together_per_s: float, batched_per_s: float) -> list[Row]:
        """The ledger's figures as multiples of these."""
        latency, rate = f"{self.name}: {self.alone_ms:g} ms", f"{self.name}: {self.together_per_s:g} /s"
        return [
            _ratio(f"publish, 1 client, p50: of {self.name}'s", alone_ms / self.alone_ms, latency),
            _ratio(f"publish singly: of {self.name}'s rate", together_per_s / self.together_per_s, rate),
            _ratio(f"publish in batches: of {self.name}'s rate", batched_per_s / self.together_per_s, rate),
        ]


async def measure_etcd(
    directory: Path, value: bytes, *, clients: int, seconds: float, repeats: int
) -> Yardstick | None:
    """Let clients put a value under many keys; None where etcd is not installed."""
    if shutil.which("etcd") is None:
        print("etcd is not installed: not compared", file=sys.stderr)
        return None
    spelled = b64encode(value).decode()
    async with session() as http:
        with running_etcd(directory) as urls:
            await until_true(lambda: _etcd_answers(http, urls), START_TIMEOUT_S, "etcd")
            numbers = iter(range(sys.maxsize))

            async def put(client: int) -> None:
                key = b64encode(f"key {next(numbers)}".encode()).decode()
                url = f"{urls[client % len(urls)]}/v3/kv/put"
                async with http.post(url, json={"key": key, "value": spelled}) as answer:
                    answer.raise_for_status()
                    await answer.read()

            alone = [await drive(put, 1, seconds) for _ in range(repeats)]
            together = [await drive(put, clients, seconds) for _ in range(repeats)]
    latency = row("etcd: put, 1 client, p50", [one.percentile(50) for one in alone], "ms")
    rate = row(f"etcd: put, {clients} clients", [one.per_s for one in together], "/s")
    return Yardstick(name="etcd", rows=(latency, rate), alone_ms=latency.value, together_per_s=rate.value)


def measure_pysyncobj(*, clients: int, seconds: float, repeats: int) -> Yardstick:
    """Commit commands by PySyncObj alone, as durably as the ledger does."""
    name = "PySyncObj with an fsync"
    alone = [consensus.run("stock-durable", seconds, 1) for _ in range(repeats)]
    together = [consensus.run("stock-durable", seconds, clients) for _ in range(repeats)]
    latency = row(f"{name}: 1 command in flight, p50", [one["p50_ms"] for one in alone], "ms")
    rate = row(f"{name}: {clients} commands in flight", [one["per_s"] for one in together], "/s")
    return Yardstick(name=name, rows=(latency, rate), alone_ms=latency.value, together_per_s=rate.value)


@contextmanager
def running_etcd(directory: Path) -> Iterator[list[str]]:
    """Three etcd processes on loopback with their defaults, which sync every write; the clients' URLs."""
    ports = free_ports("127.0.0.1", 2 * MEMBERS)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    clients, peers = urls[:MEMBERS], urls[MEMBERS:]
    cluster = ",".join(f"etcd-{number}={url}" for number, url in enumerate(peers))
    processes = []
    try:
        for number, (client, peer) in enumerate(zip(clients, peers, strict=True)):
            words = ["etcd", "--name", f"etcd-{number}", "--data-dir", str(directory / f"etcd-{number}")]
            words += ["--listen-client-urls", client, "--advertise-client-urls", client]
            words += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            words += ["--initial-cluster", cluster, "--log-level", "error"]
            with (directory / f"etcd-{number}.log").open("wb") as log:
                processes.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        yield clients
    finally:
        stop(processes)


async def _etcd_answers(http: aiohttp.ClientSession, urls: Sequence[str]) -> bool:
    with suppress(aiohttp.ClientError):
        for url in urls:
            async with http.get(f"{url}/health") as answer:
                if answer.status != 200 or (await answer.json(content_type=None)).get("health") != "true":
                    return False
        return True
    return False


def _ratio(metric: str, value: float, against: str) -> Row:
    return Row(metric=metric, value=float(f"{value:.3g}"), unit="x", against=against)
