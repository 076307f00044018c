"""What a ledger of three nodes takes and gives: `make bench NAME=node`; `python -m bench.node --seconds 2` for a try.

Three real node processes on loopback: mutual TLS between them, an fsync before anything is acknowledged, a receipt with
a quorum's cosignatures for every publication. The clients share the cores with the nodes. What etcd and bare PySyncObj
do on this machine is measured in the same run (bench.yardsticks).
"""

import argparse
import asyncio
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.clients import Samples, drive, row, session, until_true
from bench.results import Row, write
from bench.yardsticks import measure_etcd, measure_pysyncobj
from client.demo.shell import stop
from node.init import ClusterOptions, init_cluster
from registry.commitments import key_commitment
from registry.envelope import message_hash, seal
from registry.messages import Publication
from registry.receipt import Receipt, verify_receipt
from registry.tiles import entry_bundle
from registry.trust import TrustPolicy

ORIGIN = "bench.example/wmreg"
NODES, CLIENTS, BATCH, BATCH_CLIENTS = 3, 64, 64, 6
START_TIMEOUT_S = 60
ALONE = "publish with a quorum's receipt, 1 client, p50"
TOGETHER = f"publish with a quorum's receipt, {CLIENTS} clients singly"
BATCHED = f"publish with a quorum's receipt, {BATCH_CLIENTS} clients, batches of {BATCH}"
IDLE_S = 10.0
_PAGE = 4096


def main() -> None:
    """Measure and write bench/results/node.json."""
    options = argparse.ArgumentParser(prog="bench.node", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    options.add_argument("--repeats", type=int, default=3, help="of each measurement")
    options.add_argument("--no-write", action="store_true", help="only print")
    given = options.parse_args()
    with TemporaryDirectory(prefix="wmreg-bench-") as directory:
        rows = asyncio.run(measure_nodes(Path(directory) / "ledger", given.seconds, given.repeats))
        rows += compare(rows, Path(directory), given.seconds, given.repeats)
    write("node", rows, keep=not given.no_write)


def compare(rows: Sequence[Row], directory: Path, seconds: float, repeats: int) -> list[Row]:
    """The yardsticks, and the ledger's figures as multiples of theirs."""
    found = {one.metric: one.value for one in rows}
    value = next(publications())
    etcd = asyncio.run(measure_etcd(directory, value, clients=CLIENTS, seconds=seconds, repeats=repeats))
    pysyncobj = measure_pysyncobj(clients=CLIENTS, seconds=seconds, repeats=repeats)
    compared: list[Row] = []
    for yardstick in (etcd, pysyncobj):
        if yardstick is not None:
            compared += yardstick.rows
            compared += yardstick.ratios(
                alone_ms=found[ALONE], together_per_s=found[TOGETHER], batched_per_s=found[BATCHED]
            )
    return compared


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
            load.first = await leader_of(http, trust.urls)
            at_leader = [await load.publish(1, seconds) for _ in range(repeats)]
            load.first += 1
            at_follower = [await load.publish(1, seconds) for _ in range(repeats)]
            load.first = 0
            together = [await load.publish(CLIENTS, seconds) for _ in range(repeats)]
            batched = [await load.publish_batches(BATCH_CLIENTS, seconds) for _ in range(repeats)]
            reads = [await load.read_receipts(CLIENTS, seconds, processes) for _ in range(repeats)]
    p50, p99 = ([one.percentile(percent) for one in alone] for percent in (50, 99))
    return [
        row(ALONE, p50, "ms", ("≤ 25 ms", lambda ms: ms <= 25)),
        row("publish with a quorum's receipt, 1 client, p99", p99, "ms"),
        row("same, 1 client at the leader, p50", [one.percentile(50) for one in at_leader], "ms"),
        row("same, 1 client at a follower, p50", [one.percentile(50) for one in at_follower], "ms"),
        row(
            TOGETHER,
            [one.per_s for one in together],
            "/s",
            ("≥ 400 /s", lambda rate: rate >= 400),
        ),
        row(f"same, {CLIENTS} clients, p99", [one.percentile(99) for one in together], "ms"),
        row(
            BATCHED,
            batched,
            "/s",
            ("≥ 2000 /s", lambda rate: rate >= 2000),
        ),
        row("receipts read, by core that the nodes used", reads, "/s", ("≥ 1500 /s", lambda rate: rate >= 1500)),
        *idle,
    ]


class Load:
    """Clients of one ledger.

    Args:
        http: their connections.
        trust: the nodes, and the policy that receipts are checked by.
        messages: envelopes to publish, each once.

    Attributes:
        first: number of the node that the first client publishes at singly.
    """

    def __init__(self, http: aiohttp.ClientSession, trust: TrustPolicy, messages: Iterator[bytes]) -> None:
        self._http, self._trust, self._messages = http, trust, messages
        self._published: list[bytes] = []
        self.first = 0

    async def publish(self, clients: int, seconds: float) -> Samples:
        """Clients that each publish one message after the other, spread over the nodes."""
        prepared = iter([next(self._messages) for _ in range(int(seconds * 2500) + clients)])
        receipts: list[str] = []

        async def one(client: int) -> None:
            envelope = next(prepared)
            url = f"{self._trust.urls[(self.first + client) % NODES]}/v1/entries"
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

    async def publish_batches(self, clients: int, seconds: float) -> float:
        """Clients that each publish batches of BATCH messages; messages with receipts a second."""
        prepared = iter([next(self._messages) for _ in range(int(seconds * 5000) + clients * BATCH)])

        async def one(client: int) -> None:
            envelopes = [next(prepared) for _ in range(BATCH)]
            url = f"{self._trust.urls[client % NODES]}/v1/batches"
            async with self._http.post(url, data=entry_bundle(envelopes)) as answer:
                results = (await answer.json())["results"]
            verify_receipt(Receipt.parse(results[-1]["receipt"]), self._trust)
            self._published += [bytes.fromhex(result["message_hash"]) for result in results]

        return (await drive(one, clients, seconds)).per_s * BATCH

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


async def measure_idle(processes: Sequence["subprocess.Popen[bytes]"]) -> list[Row]:
    """What nodes need that have nothing to do: the ledger processes, without their verifiers."""
    before = [_cpu_s(process.pid) for process in processes]
    await asyncio.sleep(IDLE_S)
    shares = [100 * (_cpu_s(p.pid) - cpu_s) / IDLE_S for p, cpu_s in zip(processes, before, strict=True)]
    memory = [_rss(process.pid) / 1e6 for process in processes]
    return [
        row("a node without work: of one core", shares, "%", ("< 1 %", lambda share: share < 1)),
        row("a node without work: memory of its ledger process", memory, "MB", ("< 120 MB", lambda mb: mb < 120)),
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


async def all_healthy(http: aiohttp.ClientSession, urls: Sequence[str]) -> None:
    """Wait until every node says that it is healthy, and until their verifiers have started and cost nothing more."""

    async def is_ready(url: str) -> bool:
        with suppress(aiohttp.ClientError):
            async with http.get(f"{url}/healthz") as health, http.get(f"{url}/v1/node") as node:
                return health.status == 200 and (await node.json())["verifier"]["state"] == "ready"
        return False

    for url in urls:
        await until_true(lambda url=url: is_ready(url), START_TIMEOUT_S, url)  # type: ignore[misc]


async def leader_of(http: aiohttp.ClientSession, urls: Sequence[str]) -> int:
    """Number of the node that leads."""
    for number, url in enumerate(urls):
        async with http.get(f"{url}/v1/node") as node:
            if (await node.json())["raft"]["state"] == "leader":
                return number
    raise RuntimeError("no node leads")


def _cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used, to the nanosecond: clock_getcpuclockid(3)."""
    return time.clock_gettime((~pid << 3) | 2)


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


if __name__ == "__main__":
    main()
