"""A full disk: nothing new is taken, what is stored is served, and the node goes on by itself when there is room."""

import contextlib
import errno
import hashlib
import itertools
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import ORIGIN, Cluster, eventually
from fakes import LedgerMaker, binding, private_key, public_key
from nodeset import NodeSet, publication

from node import blobs, space, store
from node.errors import UnavailableError
from node.raft import journal_file
from node.raft.journal_file import JournalFile
from node.raft.journal_format import HardState
from node.space import DiskSpace, is_disk_full
from node.store import Store
from registry import commitments, signing
from registry.envelope import seal
from registry.messages import Publication
from registry.receipt import Receipt, verify_receipt

MIB = 2**20
BLOCK_BYTES = 4096
STATE = HardState(term=1, voted_for=None, commit_index=0)


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


class Room:
    """Stands for waiting: counts the attempts, and makes room at the third."""

    def __init__(self, make_room: Callable[[], None]) -> None:
        self.attempts: list[int] = []
        self._make_room = make_room

    def __call__(self, _path: Path, error: Exception, *, attempt: int) -> None:
        assert is_disk_full(error)
        self.attempts.append(attempt)
        if attempt == 2:
            self._make_room()


def test_a_journal_that_finds_no_room_in_the_middle_of_a_group_waits_and_writes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    journal = JournalFile.open(tmp_path / "journal")
    pwrite, is_full = os.pwrite, [True]

    def scarce(descriptor: int, data: bytes, offset: int) -> int:
        if is_full[0] and offset > 100:
            raise full()
        return pwrite(descriptor, data[:50] if is_full[0] else data, offset)

    room = Room(lambda: is_full.clear() or is_full.append(False))
    monkeypatch.setattr(journal_file.os, "pwrite", scarce)
    monkeypatch.setattr(journal_file, "wait_for_space", room)
    entries = [(b"\0" * 100, index, 1) for index in (1, 2, 3)]
    journal.write(truncate_from=None, entries=entries, hard_state=STATE)
    journal.close()
    assert room.attempts == [0, 1, 2]
    again = JournalFile.open(tmp_path / "journal")
    assert [again.read(index) for index in (1, 2, 3)] == entries
    again.close()


@pytest.mark.parametrize("code", [errno.EIO, errno.EBADF])
def test_a_journal_that_fails_otherwise_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    journal = JournalFile.open(tmp_path / "journal")

    def broken(*_: object) -> int:
        raise OSError(code, "broken")

    class StoppedError(Exception):
        pass

    def stop(*_: object, **__: object) -> None:
        raise StoppedError

    monkeypatch.setattr(journal_file.os, "pwrite", broken)
    monkeypatch.setattr(journal_file, "fail_stop", stop)
    with pytest.raises(StoppedError):
        journal.write(truncate_from=None, entries=[(b"\0x", 1, 1)], hard_state=STATE)
    monkeypatch.undo()
    journal.close()


def test_a_ledger_that_finds_no_room_writes_the_whole_batch_later_and_is_read_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    maker = LedgerMaker()
    for number in range(40):
        maker.publish("alice", number=number)
    Store.create(tmp_path / "ledger.db", genesis_entry=maker.entries[0])
    ledger = Store(tmp_path / "ledger.db")
    (pages,) = ledger._writer.execute("PRAGMA page_count").fetchone()
    ledger._writer.execute(f"PRAGMA max_page_count = {pages}")
    read: list[object] = []

    def make_room() -> None:
        read.append((ledger.size, ledger.entry(0), ledger.root(1)))
        ledger._writer.execute("PRAGMA max_page_count = 10000")

    room = Room(make_room)
    monkeypatch.setattr(store, "wait_for_space", room)
    ledger.begin()
    for index, entry in enumerate(maker.entries[1:], start=1):
        ledger.apply(index, entry)
    ledger.commit()
    assert room.attempts == [0, 1, 2]
    assert read == [(1, maker.entries[0], maker.checkpoint(1).root)]
    ledger.close()
    again = Store(tmp_path / "ledger.db")
    assert (again.size, again.applied_index, again.root(41)) == (41, 40, maker.checkpoint(41).root)
    again.close()


def test_which_errors_mean_that_there_is_no_room(tmp_path: Path):
    assert is_disk_full(full())
    assert is_disk_full(OSError(errno.EDQUOT, "quota"))
    assert not is_disk_full(OSError(errno.EIO, "broken"))
    assert not is_disk_full(ValueError())
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("PRAGMA max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as raised:
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    assert is_disk_full(raised.value)
    with pytest.raises(sqlite3.OperationalError) as raised:
        connection.execute("SELECT * FROM absent")
    assert not is_disk_full(raised.value)
    connection.close()


def test_the_reserve_is_kept_for_what_others_send(tmp_path: Path):
    free_bytes = DiskSpace(tmp_path).free_bytes
    DiskSpace(tmp_path, reserve_bytes=free_bytes // 2).check()
    assert DiskSpace(tmp_path, reserve_bytes=free_bytes // 2).alarm is None
    scarce = DiskSpace(tmp_path, reserve_bytes=2 * free_bytes)
    with pytest.raises(UnavailableError) as raised:
        scarce.check()
    assert (raised.value.code, raised.value.retry_after_s) == ("disk_full", space.RETRY_AFTER_S)
    assert "nothing new is taken" in scarce.alarm
    with pytest.raises(UnavailableError):
        DiskSpace(tmp_path, reserve_bytes=free_bytes // 2).check(free_bytes)


async def test_an_upload_for_which_there_is_no_room_is_503_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def no_room(*_: object) -> None:
        raise full()

    monkeypatch.setattr(blobs, "_write", no_room)
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        node, content = nodes.nodes[0], b"some blob"
        digest = hashlib.sha256(content).digest()
        signature = signing.sign(
            private_key("alice"), signing.blob_upload(node.ledger.store.origin, digest, len(content))
        )
        headers = {"Wmreg-Signer": public_key("alice").hex(), "Wmreg-Signature": signature.hex()}
        async with nodes.session.put(f"{node.url}/v1/blobs/{digest.hex()}", data=content, headers=headers) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (503, "disk_full")
            assert answer.headers["Retry-After"] == str(space.RETRY_AFTER_S)
        assert node.services.blobs.bytes_total == 0


@pytest.mark.long
async def test_signing_goes_on_when_there_is_room_again_and_notes_that_cannot_be_kept_are_gathered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        node = nodes.nodes[0]
        assert await node.ledger.signed.wait_for(1, 30)
        for connection in (node.ledger.signer._connection, node.services.gatherer._notes._connection):
            connection.execute("PRAGMA max_page_count = 1")
        monkeypatch.setattr("node.ledger.SIGN_RETRY_MIN_S", 0.02)
        number = 0
        while node.ledger.signing_trouble is None:
            await node.ledger.submit(publication(number=number), timeout_s=30)
            number += 1
            await node.services.gatherer.latest_note()
        node.ledger.signer._connection.execute("PRAGMA max_page_count = 10000")
        assert await node.ledger.signed.wait_for(number + 1, 30)
        receipt = Receipt.parse(await node.services.gatherer.receipt(number, timeout_s=30))
        assert receipt.index == number


def can_mount() -> bool:
    """Whether a process here may have a small file system of its own."""
    words = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


small_disk = pytest.mark.skipif(not can_mount(), reason="no unprivileged mounts here (unshare -rm)")
numbers = itertools.count(1)


class Disk:
    """The small file system on which one node's state is, reached through the node's own view of the files."""

    def __init__(self, cluster: Cluster, number: int, *, size_mib: int) -> None:
        self.node = cluster.nodes[number]
        state = self.node.directory / "state"
        script = (
            f'cp -a "$1/state" "$1/kept" && mount -t tmpfs -o size={size_mib}m,mode=700 tmpfs "$1/state" '
            '&& cp -a "$1/kept/." "$1/state" && shift && exec "$@"'
        )
        self.node.wrapper = ("unshare", "-rm", "sh", "-c", script, "sh", str(self.node.directory))
        self._state = state

    @property
    def state(self) -> Path:
        return Path(f"/proc/{self.node.process.pid}/root{self._state}")

    def fill(self, *, leave_bytes: int) -> None:
        descriptor = os.open(self.state / "ballast", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            while (rest := self.free_bytes - leave_bytes) > BLOCK_BYTES:
                with contextlib.suppress(OSError):  # the node may have taken some of it meanwhile
                    os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, rest // BLOCK_BYTES * BLOCK_BYTES)
            if not leave_bytes:
                with contextlib.suppress(OSError):
                    while True:
                        os.write(descriptor, bytes(512))
        finally:
            os.close(descriptor)

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.state)
        return found.f_bavail * found.f_frsize

    def empty(self) -> None:
        (self.state / "ballast").unlink()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster.make(tmp_path / "ledger")
    yield cluster
    cluster.stop()


def submission() -> bytes:
    key = binding("alice", origin=ORIGIN, number=next(numbers)).watermark_key
    message = Publication(
        time_s=int(time.time()),
        scheme="mtlsign",
        key_commitment=commitments.key_commitment(key),
        head_commitment=b"h" * 32,
        info_commitment=b"i" * 32,
    )
    return seal(message, origin=ORIGIN, private_keys=[private_key("alice")])


def accept(cluster: Cluster, number: int) -> int:
    """Submit through a node until it is accepted; the index."""
    envelope = submission()
    answer = eventually(
        lambda: answer if (answer := cluster.nodes[number].submit(envelope)).status == 200 else None,
        timeout_s=60,
        what=f"node {number} accepts",
    )
    return verify_receipt(Receipt.parse(answer.json["receipt"]), cluster.trust).index


def alarm(cluster: Cluster, number: int) -> str:
    return cluster.nodes[number].get("/health").json.get("problems", {}).get("disk", "")


@small_disk
@pytest.mark.cluster
@pytest.mark.slow
def test_a_node_below_its_reserve_refuses_and_reads_and_goes_on_by_itself(cluster: Cluster):
    disk = Disk(cluster, 0, size_mib=100)
    cluster.start()
    index = accept(cluster, 0)
    disk.fill(leave_bytes=10 * MIB)
    answer = cluster.nodes[0].submit(submission())
    assert (answer.status, answer.json["error"]["code"]) == (503, "disk_full")
    assert "MiB free" in alarm(cluster, 0)
    assert cluster.nodes[0].get("/v1/entries").json["size"] >= index + 1
    last = accept(cluster, 1)
    cluster.wait_until_equal(last + 1)
    disk.empty()
    assert accept(cluster, 0) == last + 1
    assert alarm(cluster, 0) == ""


@small_disk
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_node_without_any_room_stands_still_and_serves_while_the_others_go_on_and_catches_up(
    cluster: Cluster, role: str
):
    disks = [Disk(cluster, number, size_mib=100) for number in range(3)]
    cluster.start()
    accept(cluster, 0)
    leader = eventually(lambda: cluster.nodes[0].state()["raft"]["leader"], timeout_s=30, what="a leader")
    names = [node.name for node in cluster.nodes]
    number = names.index(leader) if role == "leader" else (names.index(leader) + 1) % 3
    others = [other for other in range(3) if other != number]
    disks[number].fill(leave_bytes=0)
    size = cluster.nodes[number].state()["size"]
    last = [accept(cluster, other) for other in others * 3][-1]
    full_node = cluster.nodes[number]
    eventually(lambda: full_node.logged("the disk is full: waiting for room"), timeout_s=30, what="a write that waits")
    assert full_node.process.poll() is None
    assert full_node.get("/v1/entries").json["size"] >= size
    assert full_node.submit(submission()).json["error"]["code"] == "disk_full"
    assert alarm(cluster, number)
    disks[number].empty()
    cluster.wait_until_healthy()
    cluster.wait_until_equal(last + 1)
    assert accept(cluster, number) > last


@small_disk
@pytest.mark.cluster
@pytest.mark.slow
def test_when_no_node_has_room_nothing_is_acknowledged_and_all_goes_on_afterwards(cluster: Cluster):
    disks = [Disk(cluster, number, size_mib=100) for number in range(3)]
    cluster.start()
    last = accept(cluster, 0)
    for disk in disks:
        disk.fill(leave_bytes=0)
    assert {cluster.nodes[number].submit(submission()).status for number in range(3)} == {503}
    assert [cluster.nodes[number].get(f"/tile/entries/000.p/{last + 1}").status for number in range(3)] == [200] * 3
    for disk in disks:
        disk.empty()
    assert accept(cluster, 1) > last
