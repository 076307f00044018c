"""A node signs one history: every size once, each tree continuing the last, whatever happens to the ledger's file."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakes import ORIGIN, START_S, LedgerMaker, private_key

from node.errors import InconsistentStateError
from node.identity import Identity
from node.signer import Signer, SignerName, SigningError
from registry import merkle
from registry.attestation import Chronology, mark_of
from registry.entry import Entry
from registry.merkle import ReadNode
from registry.note import KeyType, Note, verify_signatures


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.5

    def __call__(self) -> float:
        return self.now_s


def identity(name: str) -> Identity:
    keys = {role: private_key(f"{name}/{role}") for role in ("signing", "note", "cosigner")}
    return Identity(**keys, certificate_pem="")


def open_signer(path: Path, clock: Clock | None = None) -> Signer:
    name = SignerName(origin=ORIGIN, member="node-1")
    return Signer(path, name=name, identity=identity("node-1"), clock=clock or Clock())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Signer.create(tmp_path / "signer.db")
    return tmp_path / "signer.db"


@pytest.fixture
def signer(path: Path) -> Iterator[Signer]:
    signer = open_signer(path)
    yield signer
    signer.close()


@pytest.fixture
def maker() -> LedgerMaker:
    maker = LedgerMaker()
    for number in range(9):
        maker.publish("alice", number=number)
    return maker


def another_tree(size: int) -> ReadNode:
    """The stored hashes of a tree of the same size with other entries."""
    nodes: dict[tuple[int, int], bytes] = {}
    frontier = merkle.Frontier()
    for index in range(size):
        for node in frontier.append(merkle.leaf_hash(f"forged {index}".encode())):
            nodes[node.level, node.position] = node.digest
    return lambda level, position: nodes[level, position]


def note(signer: Signer, size: int, maker: LedgerMaker) -> Note | None:
    """What the signer says of a size, beside a ledger that has all entries."""
    return signer.note(size, stored_size=maker.ledger.size, read_node=maker.read_node)


def times_s(note: Note, maker: LedgerMaker) -> list[int | None]:
    member = maker.policy.members[0]
    keys = [member.log_key(ORIGIN), member.cosigner(ORIGIN)]
    return [signature.timestamp_s for signature in verify_signatures(note, keys)]


def test_every_size_is_signed_as_log_and_as_cosigner(signer: Signer, maker: LedgerMaker):
    signer.sign_up_to(10, maker.read_node)
    assert signer.size == 10
    for size in range(1, 11):
        signed = note(signer, size, maker)
        assert signed.text == str(maker.checkpoint(size))
        assert times_s(signed, maker) == [None, 1_800_000_000]
    assert note(signer, 0, maker) is None
    assert note(signer, 11, maker) is None


def test_a_size_between_two_rows_has_the_time_of_the_later_one_and_the_same_bytes_for_ever(
    path: Path, maker: LedgerMaker
):
    clock = Clock()
    first = open_signer(path, clock)
    first.sign_up_to(4, maker.read_node)
    clock.now_s += 100
    first.sign_up_to(10, maker.read_node)
    clock.now_s += 100
    said = [str(note(first, size, maker)) for size in range(1, 11)]
    stamps = [times_s(note(first, size, maker), maker)[1] for size in range(1, 11)]
    assert stamps == [1_800_000_000] * 4 + [1_800_000_100] * 6
    first.close()
    clock.now_s += 100
    again = open_signer(path, clock)
    assert [str(note(again, size, maker)) for size in range(1, 11)] == said
    again.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT size FROM checkpoints ORDER BY size").fetchall() == [(4,), (10,)]
    connection.close()


def test_a_size_between_two_rows_is_signed_only_on_the_tree_that_leads_to_the_signed_one(
    signer: Signer, maker: LedgerMaker
):
    signer.sign_up_to(10, maker.read_node)
    assert signer.note(6, stored_size=10, read_node=another_tree(10)) is None
    assert "does not lead to" in signer.alarm
    assert note(signer, 6, maker) is None  # whatever the ledger says from now on
    with pytest.raises(SigningError):
        signer.sign_up_to(10, maker.read_node)


@pytest.mark.parametrize("place", [(0, 4), (0, 5), (1, 3), (2, 0)])
def test_a_changed_hash_within_a_group_is_not_signed(signer: Signer, maker: LedgerMaker, place: tuple[int, int]):
    def forged(level: int, position: int) -> bytes:
        return b"\0" * 32 if (level, position) == place else maker.read_node(level, position)

    signer.sign_up_to(10, maker.read_node)
    assert signer.note(5, stored_size=10, read_node=forged) is None
    assert signer.alarm


def test_a_size_between_two_rows_waits_for_the_ledger_to_have_the_later_one(signer: Signer, maker: LedgerMaker):
    signer.sign_up_to(10, maker.read_node)
    assert signer.note(6, stored_size=9, read_node=maker.read_node) is None
    assert signer.note(10, stored_size=9, read_node=maker.read_node) is not None
    assert signer.alarm is None
    assert note(signer, 6, maker) is not None


def test_a_time_that_was_changed_on_the_disk_is_not_signed(path: Path, maker: LedgerMaker):
    signer = open_signer(path)
    signer.sign_up_to(10, maker.read_node)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE checkpoints SET time_s = time_s - 3600")
    connection.close()
    assert note(signer, 6, maker) is None
    assert "the time of size 10" in signer.alarm
    signer.close()


def ordered(*, is_backdated: bool) -> LedgerMaker:
    """Entries of three hours that lie five apart; entry 8, of the last, may say that it is of the first."""
    maker = LedgerMaker()
    for number, hour in enumerate([0, 0, 5, 5, 5, 10, 10, 0 if is_backdated else 10, 10], start=1):
        maker.now_s = START_S + 3600 * hour
        maker.publish("alice", number=number)
    return maker


def attested(directory: Path, maker: LedgerMaker) -> Chronology:
    """What three nodes say of every size when they are asked, which stored the last hour's entries in other groups."""
    marks, clock = [], Clock()
    groups = {"node-1": [3, 6, 10], "node-2": [3, 6, 8, 10], "node-3": [3, 6, 7, 9, 10]}
    signers = []
    for member, sizes in groups.items():
        Signer.create(directory / member)
        name = SignerName(origin=ORIGIN, member=member)
        signers.append(Signer(directory / member, name=name, identity=identity(member), clock=clock))
        for size in sizes:
            clock.now_s = START_S + 3600 * {3: 0, 6: 5}.get(size, 10)
            signers[-1].sign_up_to(size, maker.read_node)
    for size in range(1, 11):
        notes = [note(signer, size, maker) for signer in signers]
        lines = tuple(line for one in notes for line in one.signatures)
        marks.append(mark_of(maker.trust.check(Note(notes[0].text, lines)), cosigners=3))
    for signer in signers:
        signer.close()
    return Chronology(marks)


@pytest.mark.parametrize("is_backdated", [True, False])
def test_an_entry_that_was_backdated_within_a_group_is_convicted_by_sizes_signed_on_demand(
    tmp_path: Path, is_backdated: bool
):
    maker = ordered(is_backdated=is_backdated)
    recorded_s = [Entry.decode(entry).recorded_s for entry in maker.entries]
    skews_s = [maker.policy.time_skew_s] * len(recorded_s)
    found = attested(tmp_path, maker).misdated(recorded_s, skew_s=skews_s)
    assert [(one.index, one.is_early, one.is_settled) for one in found] == [(8, True, True)] * is_backdated


def test_a_node_killed_between_the_ledgers_commit_and_signing_signs_after_the_restart(path: Path, maker: LedgerMaker):
    first = open_signer(path)
    first.sign_up_to(4, maker.read_node)
    before = note(first, 4, maker)
    first.close()
    again = open_signer(path)
    assert again.size == 4
    again.sign_up_to(10, maker.read_node)
    assert str(note(again, 4, maker)) == str(before)
    assert note(again, 10, maker).text == str(maker.checkpoint(10))
    again.close()


def test_a_smaller_tree_is_left_alone_and_nothing_is_signed_again(signer: Signer, maker: LedgerMaker):
    signer.sign_up_to(8, maker.read_node)
    before = str(note(signer, 5, maker))
    signer.sign_up_to(5, another_tree(5))
    signer.check(5, maker.read_node)
    assert (signer.size, str(note(signer, 5, maker)), signer.alarm) == (8, before, None)


def test_a_smaller_tree_that_is_another_than_was_signed_is_noticed_at_start(signer: Signer, maker: LedgerMaker):
    for size in (3, 5, 8):
        signer.sign_up_to(size, maker.read_node)
    with pytest.raises(SigningError, match="size 5 is not the one this node signed"):
        signer.check(7, another_tree(7))


def renewed_keys(*roles: str) -> Identity:
    """The node's keys after a change of some."""
    keys = {role: private_key(f"node-1/{role}") for role in ("signing", "note", "cosigner")}
    return Identity(**keys | {role: private_key(f"node-1/{role}-next") for role in roles}, certificate_pem="")


def reopened(path: Path, clock: Clock, identity: Identity) -> Signer:
    return Signer(path, name=SignerName(origin=ORIGIN, member="node-1"), identity=identity, clock=clock)


@pytest.mark.parametrize("roles", [("note",), ("cosigner",), ("note", "cosigner")])
def test_after_a_change_of_keys_every_size_has_the_signatures_of_the_new_ones_with_the_time_that_the_old_ones_stated(
    path: Path, maker: LedgerMaker, roles: tuple[str, ...]
):
    clock = Clock()
    first = open_signer(path, clock)
    first.sign_up_to(4, maker.read_node)
    clock.now_s += 100
    first.sign_up_to(8, maker.read_node)
    old_keys, said = first.keys, {size: note(first, size, maker) for size in range(1, 9)}
    first.close()
    clock.now_s += 100
    again = reopened(path, clock, renewed_keys(*roles))
    again.check(8, maker.read_node, former_keys=old_keys)
    again.sign_up_to(10, maker.read_node)
    for size in range(1, 11):
        checked = {one.key.type: one.timestamp_s for one in verify_signatures(note(again, size, maker), again.keys)}
        stamp = 1_800_000_000 + 100 * ((size > 4) + (size > 8))
        assert checked == {KeyType.ED25519: None, KeyType.COSIGNATURE: stamp}
    for size in (4, 8):
        both = note(again, size, maker)
        assert set(said[size].signatures) <= set(both.signatures)
        assert {(line.name, line.key_id) for line in both.signatures[-2:]} == {(k.name, k.key_id) for k in again.keys}
        assert len(verify_signatures(both, old_keys)) == 2
    assert len(note(again, 10, maker).signatures) == 2
    again.close()


def test_new_keys_do_not_vouch_for_what_the_old_ones_signed_if_the_ledger_or_the_time_is_another(
    path: Path, maker: LedgerMaker
):
    first = open_signer(path)
    first.sign_up_to(8, maker.read_node)
    said = note(first, 8, maker)
    first.close()
    again = reopened(path, Clock(), renewed_keys("note", "cosigner"))
    assert again.note(8, stored_size=7, read_node=another_tree(8)) == said
    assert again.note(8, stored_size=8, read_node=another_tree(8)) == said
    assert "does not lead to" in again.alarm
    again.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE checkpoints SET time_s = time_s - 3600")
    connection.close()
    again = reopened(path, Clock(), renewed_keys("note", "cosigner"))
    assert note(again, 8, maker) == said
    assert "the time of size 8" in again.alarm
    again.close()


def test_signatures_of_other_keys_are_noticed_at_start_unless_the_node_had_these_keys(path: Path, maker: LedgerMaker):
    signer = open_signer(path)
    signer.sign_up_to(3, maker.read_node)
    signer.close()
    keys = {role: Ed25519PrivateKey.generate() for role in ("signing", "note", "cosigner")}
    name = SignerName(origin=ORIGIN, member="node-1")
    renewed = Signer(path, name=name, identity=Identity(**keys, certificate_pem=""), clock=Clock())
    member = maker.policy.members[0]
    renewed.check(3, maker.read_node, former_keys=frozenset({member.log_key(ORIGIN), member.cosigner(ORIGIN)}))
    with pytest.raises(SigningError, match="not signed by this node's keys"):
        renewed.check(3, maker.read_node)
    renewed.close()


@pytest.mark.parametrize("size", [4, 5, 7])
def test_a_tree_that_does_not_continue_the_signed_one_stops_the_signer_for_good(
    signer: Signer, maker: LedgerMaker, size: int
):
    signer.sign_up_to(size, maker.read_node)
    with pytest.raises(SigningError, match=f"refusing to sign size {size + 1}"):
        signer.sign_up_to(10, another_tree(10))
    assert signer.size == size
    assert note(signer, size + 1, maker) is None
    assert signer.alarm
    with pytest.raises(SigningError):
        signer.sign_up_to(10, maker.read_node)


def test_the_check_at_start_finds_a_ledger_with_another_tree(path: Path, maker: LedgerMaker):
    first = open_signer(path)
    first.sign_up_to(6, maker.read_node)
    first.check(10, maker.read_node)
    first.check(6, maker.read_node)
    first.close()
    again = open_signer(path)
    with pytest.raises(SigningError, match="size 6 is not the one this node signed"):
        again.check(10, another_tree(10))
    again.close()


def test_nothing_is_kept_of_a_batch_that_fails_in_the_middle(signer: Signer, maker: LedgerMaker):
    def torn(level: int, position: int) -> bytes:
        if (level, position) == (0, 6):
            raise OSError("disk")
        return maker.read_node(level, position)

    with pytest.raises(OSError, match="disk"):
        signer.sign_up_to(10, torn)
    assert (signer.size, note(signer, 1, maker)) == (0, None)
    signer.sign_up_to(10, maker.read_node)
    assert note(signer, 10, maker).text == str(maker.checkpoint(10))


@pytest.mark.parametrize("place", [(0, 8), (1, 4), (3, 0)])
def test_stored_hashes_that_contradict_each_other_are_not_signed(
    signer: Signer, maker: LedgerMaker, place: tuple[int, int]
):
    def forged(level: int, position: int) -> bytes:
        return b"\0" * 32 if (level, position) == place else maker.read_node(level, position)

    with pytest.raises(SigningError, match="refusing to sign size 10"):
        signer.sign_up_to(10, forged)
    assert (signer.size, note(signer, 1, maker)) == (0, None)
    assert signer.alarm


def test_what_was_signed_is_read_while_more_is_being_signed(signer: Signer, maker: LedgerMaker):
    signer.sign_up_to(3, maker.read_node)
    seen = []

    def reading(level: int, position: int) -> bytes:
        seen.append((note(signer, 3, maker), note(signer, 4, maker)))
        return maker.read_node(level, position)

    signer.sign_up_to(10, reading)
    assert {(note.text, later) for note, later in seen} == {(str(maker.checkpoint(3)), None)}


def test_two_processes_with_one_file_cannot_both_sign(path: Path, maker: LedgerMaker):
    first, second = open_signer(path), open_signer(path)
    first.sign_up_to(3, maker.read_node)
    with pytest.raises(SigningError, match="somebody else signed size 3"):
        second.sign_up_to(3, another_tree(3))
    first.sign_up_to(4, maker.read_node)
    assert note(first, 4, maker).text == str(maker.checkpoint(4))
    first.close()
    second.close()


def test_the_times_of_cosignatures_never_go_back(path: Path, maker: LedgerMaker):
    clock = Clock()
    signer = open_signer(path, clock)
    signer.sign_up_to(1, maker.read_node)
    clock.now_s -= 3600
    signer.sign_up_to(2, maker.read_node)
    clock.now_s += 7200
    signer.sign_up_to(3, maker.read_node)
    stamps = [times_s(note(signer, size, maker), maker)[1] for size in (1, 2, 3)]
    assert stamps == [1_800_000_000, 1_800_000_000, 1_800_003_600]
    signer.close()


def test_a_missing_damaged_or_foreign_file_is_refused_and_never_made_anew(tmp_path: Path, path: Path):
    with pytest.raises(InconsistentStateError, match="must not be made anew"):
        open_signer(tmp_path / "absent.db")
    assert not (tmp_path / "absent.db").exists()
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(InconsistentStateError):
        open_signer(path)
    with pytest.raises(FileExistsError):
        Signer.create(path)


def test_a_signature_that_was_taken_out_of_the_file_is_noticed(path: Path, maker: LedgerMaker):
    signer = open_signer(path)
    signer.sign_up_to(5, maker.read_node)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM checkpoints WHERE size = 5")
    connection.close()
    with pytest.raises(SigningError, match="somebody else"):
        signer.sign_up_to(6, maker.read_node)
    signer.close()


@pytest.mark.parametrize(
    "damage", ["log_line = 'x'", "log_line = CAST(x'ff00fe' AS TEXT)", "log_line = x'00'", "root = 1"]
)
def test_a_damaged_last_checkpoint_is_noticed_at_start(path: Path, maker: LedgerMaker, damage: str):
    signer = open_signer(path)
    signer.sign_up_to(5, maker.read_node)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE checkpoints SET " + damage + " WHERE size = 5")  # noqa: S608 -- the list above
    connection.close()
    with pytest.raises(SigningError, match="not signed by this node's keys"):
        signer.check(5, maker.read_node)
    signer.close()
