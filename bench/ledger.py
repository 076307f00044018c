"""What the ledger's own work costs: `make bench NAME=ledger`, or `python -m bench.ledger --entries 2000` for a try.

Every ratio is measured against bare Ed25519 in `cryptography`, in the same run: a publication's encoding and checks
beside one signature and its verification; an audit beside verifying the same signatures on all cores, by processes that
do nothing else and have them and their keys in memory. (One signature that is verified again and again stays in the
caches, and is 2 % faster.) The ledger itself verifies with libsodium, which is faster; the yardstick stays what it was.
The audited ledger has publications, claims and votes (6 : 1 : 3), as its mirror holds them on disk.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bench.demo import watch
from bench.ledger_maker import Ledgers, make_certificate, make_mirror
from bench.results import Row, write
from client.audit.mirror import Mirror
from registry import merkle
from registry.audit import Replay, Tree
from registry.certificate import verify_certificate
from registry.envelope import seal, unseal

REPEATS = 5
PAIRS = 2000  # signatures in one repeat of the message bench, fewer than a second's worth
PROOFS = 2000


def main() -> None:
    """Measure and write bench/results/ledger.json."""
    options = argparse.ArgumentParser(prog="bench.ledger", description=(__doc__ or "").splitlines()[0])
    options.add_argument("--entries", type=int, default=100_000, help="entries of the audited ledger")
    options.add_argument("--leaves", type=int, default=1_000_000, help="leaves of the Merkle tree")
    options.add_argument("--no-write", action="store_true", help="only print")
    given = options.parse_args()
    tree = Tree()
    rows = [measure_message(), *measure_certificate(), measure_append(tree, given.leaves)]
    rows.append(measure_inclusion(tree))
    with tempfile.TemporaryDirectory() as directory:
        rows += measure_audit(Path(directory), given.entries)
    write("ledger", rows, keep=not given.no_write)


def measure_message() -> Row:
    """Encode, sign and verify a publication, against one bare signature and its verification."""
    ledgers, key = Ledgers(), Ed25519PrivateKey.generate()
    public, statement = key.public_key(), bytes(250)
    publications = [ledgers.publication(number) for number in range(PAIRS)]

    def whole() -> None:
        for publication in publications:
            unseal(seal(publication, origin=ledgers.origin, private_keys=[key]), origin=ledgers.origin)

    def bare() -> None:
        for _ in range(PAIRS):
            public.verify(key.sign(statement), statement)

    ratios = [seconds(whole) / seconds(bare) for _ in range(REPEATS)]
    return _row(
        "publication: encode, sign, verify",
        ratios,
        "x",
        goal=("≤ 1.3 x", lambda x: x <= 1.3),
        against="bare Ed25519 sign and verify",
    )


def measure_certificate() -> list[Row]:
    """Verify a certificate of three votes, offline."""
    raw, trust = make_certificate()
    times_ms = [1000 * seconds(lambda: verify_certificate(raw, trust)) for _ in range(10 * REPEATS)]
    goal = ("< 10 ms", lambda ms: ms < 10)
    return [
        _row("certificate: verification", times_ms, "ms", goal=goal),
        Row(metric="certificate: size", value=len(raw), unit="B"),
    ]


def measure_append(tree: Tree, leaves: int) -> Row:
    """Append leaves to trees that keep all their nodes; the last one is `tree`."""
    entry = bytes(300)

    def append(to: Tree) -> None:
        for number in range(leaves):
            to.append(merkle.leaf_hash(entry[:292] + number.to_bytes(8, "big")))

    times_s = [seconds(lambda: append(Tree())) for _ in range(2)] + [seconds(lambda: append(tree))]
    return _row(f"append of {leaves} leaves", times_s, "s", goal=("< 10 s", lambda s: s < 10))


def measure_inclusion(tree: Tree) -> Row:
    """Make an inclusion proof from stored nodes."""
    step = max(1, tree.size // PROOFS)
    indexes = [(number * step * 7919) % tree.size for number in range(PROOFS)]
    proofs = [partial(merkle.inclusion_proof, index, tree.size, tree.read_node) for index in indexes]
    times_ms = [1000 * seconds(proof) for proof in proofs]
    return _row(f"inclusion proof in {tree.size} entries", times_ms, "ms", goal=("< 1 ms", lambda ms: ms < 1))


def measure_audit(directory: Path, entries: int) -> list[Row]:
    """Audit a mirror offline, against verifying as many signatures on all cores."""
    mirror, policy_path = make_mirror(directory, entries)
    signatures = signatures_of(mirror, entries)
    cores = len(os.sched_getaffinity(0))
    shares, times_s, main_mib, tree_mib = [], [], [], []
    for _ in range(REPEATS):
        bare_s = _bare_s(signatures, cores)
        audit_s, own, tree = _audit(mirror, policy_path)
        times_s.append(audit_s)
        shares.append(100 * bare_s / audit_s)
        main_mib.append(own / 2**20)
        tree_mib.append(tree / 2**20)
    against = f"{len(signatures)} bare Ed25519 verifications, of the same signatures, by {cores} processes"
    what = f"audit of {entries} entries"
    return [
        _row(f"{what}, offline", times_s, "s"),
        _row(f"{what}, of the bare rate", shares, "%", goal=("≥ 70 %", lambda p: p >= 70), against=against),
        _row(f"{what}, peak memory of the main process", main_mib, "MiB", goal=("< 300 MB", lambda m: m < 286)),
        _row(f"{what}, peak memory of all its processes (PSS)", tree_mib, "MiB"),
    ]


def seconds(work: Callable[[], object]) -> float:
    """How long a piece of work takes, wall time."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


Signature = tuple[bytes, bytes, bytes]  # key, signature, statement
_prepared: list[tuple[Ed25519PublicKey, bytes, bytes]] = []


def signatures_of(mirror: Mirror, entries: int) -> list[Signature]:
    """All signatures that an audit of a mirror verifies."""
    found: list[Signature] = []

    def take(signed: bytes, *, signer: bytes, signature: bytes) -> bool:
        found.append((signer, signature, signed))
        return True

    replay = Replay(take)
    for raw in mirror.entries(entries):
        replay.take(raw)
    return found


def prepare(signatures: list[Signature]) -> None:
    """Have signatures and their keys at hand in a worker process."""
    keys = {signer: Ed25519PublicKey.from_public_bytes(signer) for signer, _, _ in signatures}
    _prepared[:] = [(keys[signer], signature, signed) for signer, signature, signed in signatures]


def verify_prepared(first: int, step: int) -> int:
    """Verify each step-th signature; return how many."""
    share = _prepared[first::step]
    for key, signature, signed in share:
        key.verify(signature, signed)
    return len(share)


def _bare_s(signatures: list[Signature], cores: int) -> float:
    """Seconds that the cores need for these verifications together; starting the processes is not counted."""
    spawn = get_context("spawn")
    with ProcessPoolExecutor(cores, mp_context=spawn, initializer=prepare, initargs=(signatures,)) as pool:
        few = 50 * cores
        list(pool.map(verify_prepared, range(few), [len(signatures) // 50] * few))
        begun = time.perf_counter()
        done = sum(pool.map(verify_prepared, range(cores), [cores] * cores))
        bare_s = time.perf_counter() - begun
    if done != len(signatures):
        raise RuntimeError(f"{done} of {len(signatures)} signatures were verified")
    return bare_s


def _audit(mirror: Mirror, policy_path: Path) -> tuple[float, int, int]:
    """Run the auditor in a process of its own; return seconds of the audit, its peak RSS and its tree's peak PSS."""
    words = [sys.executable, "-m", "bench.ledger_audit", str(mirror.directory), str(policy_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        peak = watch(process, period_s=1.0)
        out = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise RuntimeError("the audit of the bench's own ledger found something wrong")
    audit_s, own = out.split()
    return float(audit_s), int(own), peak


Goal = tuple[str, Callable[[float], bool]]


def _row(metric: str, values: list[float], unit: str, *, goal: Goal | None = None, against: str | None = None) -> Row:
    """Median and spread; the median decides about a goal."""
    median = statistics.median(values)
    return Row(
        metric=metric,
        value=float(f"{median:.4g}"),
        unit=unit,
        spread=(float(f"{min(values):.4g}"), float(f"{max(values):.4g}")),
        goal=goal[0] if goal else None,
        met=goal[1](median) if goal else None,
        against=against,
    )


if __name__ == "__main__":
    main()
