"""What a ledger of three nodes takes and gives: `make bench NAME=node`; `python -m bench.node --seconds 2` for a try.

Three real node processes on loopback: mutual TLS between them, an fsync before anything is acknowledged, a receipt with
a quorum's cosignatures for every publication. The clients share the cores with the nodes. Where etcd is installed
(Debian: etcd-server), a cluster of three of it takes values of the same size from as many clients in the same run; it
signs nothing and proves nothing, so it is a yardstick for the machine and not a rival.
"""

import argparse
import asyncio
import hashlib
import shutil
import statistics
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.results import Row, write
from client.demo.shell import stop
from node.init import ClusterOptions, init_cluster
from node.ports import free_ports
from registry.commitments import key_commitment
from registry.envelope import message_hash, seal
from registry.messages import Publication
from registry.receipt import Receipt, verify_receipt
from registry.trust import TrustPolicy

ORIGIN = "bench.example/wmreg"
NODES, CLIENTS = 3, 64
START_TIMEOUT_S = 60
IDLE_S = 10.0
_PAGE = 4096


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


def main() -> None:
    """Measure and write bench/results/node.json."""
    options = argparse.ArgumentParser(prog="bench.node", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    options.add_argument("--repeats", type=int, default=3, help="of each measurement")
    options.add_argument("--no-write", action="store_true", help="only print")
    given = options.parse_args()
    with TemporaryDirectory(prefix="wmreg-bench-") as directory:
        rows = asyncio.run(measure_nodes(Path(directory) / "ledger", given.seconds, given.repeats))
        rows += asyncio.run(measure_etcd(Path(directory), given.seconds, given.repeats))
    write("node", rows, keep=not given.no_write)


async def measure_nodes(directory: Path, seconds: float, repeats: int) -> list[Row]:
    """All figures of one ledger."""
    init_cluster(
        directory, nodes=NODES, origin=ORIGIN, options=ClusterOptions(submissions_per_s=0, key_submissions_per_s=0)
    )
    trust = TrustPolicy.parse((directory / "policy.txt").read_text())
    messages = publications()
    async with session() as http:
        with running_nodes(directory) as processes:
            await all_healthy(http, trust.urls)
            idle = await measure_idle(processes)
            load = Load(http, trust, messages)
            alone = [await load.publish(1, seconds) for _ in range(repeats)]
            together = [await load.publish(CLIENTS, seconds) for _ in range(repeats)]
            reads = [await load.read_receipts(CLIENTS, seconds, processes) for _ in range(repeats)]
    p50, p99 = ([one.percentile(percent) for one in alone] for percent in (50, 99))
    return [
        _row("publish with a quorum's receipt, 1 client, p50", p50, "ms", ("≤ 25 ms", lambda ms: ms <= 25)),
        _row("publish with a quorum's receipt, 1 client, p99", p99, "ms"),
        _row(
            f"publish with a quorum's receipt, {CLIENTS} clients singly",
            [one.per_s for one in together],
            "/s",
            ("≥ 400 /s", lambda rate: rate >= 400),
        ),
        _row(f"same, {CLIENTS} clients, p99", [one.percentile(99) for one in together], "ms"),
        _row("receipts read, by core that the nodes used", reads, "/s", ("≥ 1500 /s", lambda rate: rate >= 1500)),
        *idle,
    ]


async def measure_etcd(directory: Path, seconds: float, repeats: int) -> list[Row]:
    """The same clients and sizes against etcd; nothing where it is not installed."""
    if shutil.which("etcd") is None:
        print("etcd is not installed: not compared", file=sys.stderr)
        return []
    value = b64encode(next(publications())).decode()
    async with session() as http:
        with running_etcd(directory) as urls:
            await _until_true(lambda: _etcd_answers(http, urls), START_TIMEOUT_S, "etcd")
            numbers = iter(range(sys.maxsize))

            async def put(client: int) -> None:
                key = b64encode(f"key {next(numbers)}".encode()).decode()
                url = f"{urls[client % len(urls)]}/v3/kv/put"
                async with http.post(url, json={"key": key, "value": value}) as answer:
                    answer.raise_for_status()
                    await answer.read()

            alone = [await drive(put, 1, seconds) for _ in range(repeats)]
            together = [await drive(put, CLIENTS, seconds) for _ in range(repeats)]
    return [
        _row("etcd: put, 1 client, p50", [one.percentile(50) for one in alone], "ms"),
        _row(f"etcd: put, {CLIENTS} clients", [one.per_s for one in together], "/s"),
    ]


class Load:
    """Clients of one ledger.

    Args:
        http: their connections.
        trust: the nodes, and the policy that receipts are checked by.
        messages: envelopes to publish, each once.
    """

    def __init__(self, http: aiohttp.ClientSession, trust: TrustPolicy, messages: Iterator[bytes]) -> None:
        self._http, self._trust, self._messages = http, trust, messages
        self._published: list[bytes] = []

    async def publish(self, clients: int, seconds: float) -> Samples:
        """Clients that each publish one message after the other, spread over the nodes."""
        prepared = iter([next(self._messages) for _ in range(int(seconds * 2500) + clients)])
        receipts: list[str] = []

        async def one(client: int) -> None:
            envelope = next(prepared)
            url = f"{self._trust.urls[client % NODES]}/v1/entries"
            async with self._http.post(url, data=envelope) as answer:
                document = await answer.json()
                if answer.status != 200:
                    raise RuntimeError(f"{answer.status}: {document}")
                receipts.append(document["receipt"])
                self._published.append(message_hash(envelope))

        samples = await drive(one, clients, seconds)
        for text in receipts[:: max(1, len(receipts) // 50)]:
            verify_receipt(Receipt.parse(text), self._trust)
        return samples

    async def read_receipts(
        self, clients: int, seconds: float, processes: Sequence["subprocess.Popen[bytes]"]
    ) -> float:
        """Receipts of published messages a second, for each core that the nodes kept busy with them."""
        numbers = iter(range(sys.maxsize))

        async def one(client: int) -> None:
            digest = self._published[next(numbers) * 7919 % len(self._published)]
            async with self._http.get(f"{self._trust.urls[client % NODES]}/v1/receipts/{digest.hex()}") as answer:
                answer.raise_for_status()
                await answer.read()

        before = sum(_cpu_s(process.pid) for process in processes)
        samples = await drive(one, clients, seconds)
        return len(samples.latencies_ms) / (sum(_cpu_s(process.pid) for process in processes) - before)


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


async def measure_idle(processes: Sequence["subprocess.Popen[bytes]"]) -> list[Row]:
    """What nodes need that have nothing to do: the ledger processes, without their verifiers."""
    before = [_cpu_s(process.pid) for process in processes]
    await asyncio.sleep(IDLE_S)
    shares = [100 * (_cpu_s(p.pid) - cpu_s) / IDLE_S for p, cpu_s in zip(processes, before, strict=True)]
    memory = [_rss(process.pid) / 1e6 for process in processes]
    return [
        _row("a node without work: of one core", shares, "%", ("< 1 %", lambda share: share < 1)),
        _row("a node without work: memory of its ledger process", memory, "MB", ("< 120 MB", lambda mb: mb < 120)),
    ]


def publications() -> Iterator[bytes]:
    """Envelopes of one owner's publications, without an end."""
    owner = Ed25519PrivateKey.generate()
    number = 0
    while True:
        number += 1
        commitments = [hashlib.sha256(f"{what} {number}".encode()).digest() for what in ("key", "head", "info")]
        message = Publication(
            time_s=int(time.time()),
            scheme="mtlsign",
            key_commitment=key_commitment(commitments[0]),
            head_commitment=commitments[1],
            info_commitment=commitments[2],
        )
        yield seal(message, origin=ORIGIN, private_keys=[owner])


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections that are kept open, one for each client and node."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as http:
        yield http


@contextmanager
def running_nodes(directory: Path) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """The node processes of a ledger; their logs lie beside their settings."""
    processes = []
    try:
        for path in sorted(directory.glob("node-*")):
            with (path / "log").open("wb") as log:
                words = [sys.executable, "-m", "node.main", str(path / "node.toml")]
                processes.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        yield processes
    finally:
        stop(processes)


@contextmanager
def running_etcd(directory: Path) -> Iterator[list[str]]:
    """Three etcd processes on loopback with their defaults, which sync every write; the clients' URLs."""
    ports = free_ports("127.0.0.1", 2 * NODES)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    clients, peers = urls[:NODES], urls[NODES:]
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


async def all_healthy(http: aiohttp.ClientSession, urls: Sequence[str]) -> None:
    """Wait until every node says that it is healthy, and until their verifiers have started and cost nothing more."""

    async def is_ready(url: str) -> bool:
        with suppress(aiohttp.ClientError):
            async with http.get(f"{url}/healthz") as health, http.get(f"{url}/v1/node") as node:
                return health.status == 200 and (await node.json())["verifier"]["state"] == "ready"
        return False

    for url in urls:
        await _until_true(lambda url=url: is_ready(url), START_TIMEOUT_S, url)  # type: ignore[misc]


async def _etcd_answers(http: aiohttp.ClientSession, urls: Sequence[str]) -> bool:
    with suppress(aiohttp.ClientError):
        for url in urls:
            async with http.get(f"{url}/health") as answer:
                if answer.status != 200 or (await answer.json(content_type=None)).get("health") != "true":
                    return False
        return True
    return False


async def _until_true(condition: Callable[[], Awaitable[bool]], timeout_s: float, what: str) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 -- of another process
            await asyncio.sleep(0.1)
    print(f"{what}: up", file=sys.stderr)


def _cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


Goal = tuple[str, Callable[[float], bool]]


def _row(metric: str, values: Sequence[float], unit: str, goal: Goal | None = None) -> Row:
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


if __name__ == "__main__":
    main()
