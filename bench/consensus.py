"""What the consensus layer takes by itself: `make bench NAME=consensus`; `python -m bench.consensus -h` for a try.

Three processes on loopback, commands of 300 bytes, the load in the leader's process. Ours: mutual TLS 1.3, msgpack, an
fsync before every acknowledgement. Stock: PySyncObj as it is (plain TCP, pickle, journal file), once with its journal
flushed at each entry, which makes it as durable as ours, and once without: a power cut loses what was acknowledged.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.results import Row, write
from node.ports import free_ports
from node.raft import RaftPeer, make_certificate

MEMBERS = 3
KINDS = ("ours", "stock-durable", "stock")
TIMEOUT_S = 60.0


def main() -> None:
    """Measure and write bench/results/consensus.json."""
    options = argparse.ArgumentParser(prog="bench.consensus", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    options.add_argument("--repeats", type=int, default=3, help="of each measurement")
    options.add_argument("--no-write", action="store_true", help="only print")
    given = options.parse_args()
    rows = []
    for in_flight in (1, 64):
        found = {kind: [run(kind, given.seconds, in_flight) for _ in range(given.repeats)] for kind in KINDS}
        goal = "≥ 5000 /s" if in_flight == 64 else None
        stock = _median([one["per_s"] for one in found["stock-durable"]])
        for kind, results in found.items():
            rates, ours = [one["per_s"] for one in results], kind == "ours"
            rows += [
                Row(
                    metric=f"{kind}: {in_flight} in flight",
                    value=_median(rates),
                    unit="/s",
                    spread=(round(min(rates)), round(max(rates))),
                    goal=goal if ours else None,
                    met=_median(rates) >= 5000 if goal and ours else None,
                    against=f"stock-durable {stock:g} /s" if ours else None,
                ),
                Row(
                    metric=f"{kind}: {in_flight} in flight, p50",
                    value=_median([one["p50_ms"] for one in results]),
                    unit="ms",
                ),
            ]
    write("consensus", rows, keep=not given.no_write)


def run(kind: str, seconds: float, in_flight: int) -> dict[str, float]:
    """Start a cluster, let its leader measure, end it.

    Raises:
        RuntimeError: no member said anything in time.
    """
    with TemporaryDirectory(prefix="wmreg-bench-") as name:
        directory = Path(name)
        make_peers(directory)
        words = [sys.executable, "-m", "bench.consensus_member", kind]
        members = [
            _start([*words, str(number), name, str(seconds), str(in_flight)], directory, number)
            for number in range(MEMBERS)
        ]
        try:
            return _first_result([directory / f"{n}" for n in range(MEMBERS)], TIMEOUT_S + seconds)
        finally:
            for member in members:
                member.kill()
                member.wait()


def make_peers(directory: Path) -> None:
    """Certificates, keys and peers.json of a cluster."""
    peers = []
    for number, port in enumerate(free_ports("127.0.0.1", MEMBERS), start=1):
        name = f"node-{number}"
        certificate = make_certificate(name, now=datetime.now(UTC))
        (directory / f"{name}.crt").write_text(certificate.certificate_pem)
        (directory / f"{name}.key").write_text(certificate.private_key_pem)
        peer = RaftPeer(
            name=name,
            host="127.0.0.1",
            port=port,
            certificate_pins=(certificate.pin,),
            certificate_pem=certificate.certificate_pem,
        )
        peers.append(asdict(peer))
    (directory / "peers.json").write_text(json.dumps(peers))


def _start(words: list[str], directory: Path, number: int) -> "subprocess.Popen[bytes]":
    with (directory / f"{number}").open("wb") as output, (directory / f"{number}.log").open("wb") as log:
        return subprocess.Popen(words, stdout=output, stderr=log)


def _first_result(outputs: list[Path], timeout_s: float) -> dict[str, float]:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        for path in outputs:
            text = path.read_text()
            if text.endswith("\n"):
                result: dict[str, float] = json.loads(text)
                return result
        time.sleep(0.05)
    raise RuntimeError("no member measured anything")


def _median(values: list[float]) -> float:
    return float(f"{statistics.median(values):.4g}")


if __name__ == "__main__":
    main()
