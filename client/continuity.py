"""The check that every later tree of a ledger continues the remembered one (DESIGN 2).

* A larger tree must contain the remembered one; its hashes come from the nodes' tiles, so nobody's word is taken.
* A smaller one is shown by nodes that are behind. Are there as many of them as a quorum, then one of them signed the
  remembered tree and has lost it: the ledger was rolled back.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from client.api import Api, OtherLogError, SeenCheckpoint, quorum_size
from client.errors import InvalidError
from client.evidence import checkpoint_in, contradiction
from client.files import write_atomic
from client.memory import UNSIGNED, Memory
from client.transport import UnreachableError
from registry import merkle, tiles
from registry.checkpoint import Checkpoint
from registry.equivocation import Equivocation
from registry.errors import ConsistencyError, QuorumError, RegistryError, UntrustedError
from registry.note import Note
from registry.trust import TrustPolicy

_LEVELS = 8  # a tile's 256 hashes span eight levels of the tree
_CATCH_UP_WAIT_S = 10


class AlarmError(ConsistencyError):
    """The ledger does not continue what was seen.

    Attributes:
        evidence: the file that proves it to others; None when it could not be shown whole.
    """

    def __init__(self, message: str, *, code: str, evidence: Path | None = None) -> None:
        super().__init__(message, code=code)
        self.evidence = evidence


class StrangersError(QuorumError, UntrustedError):
    """Every node that answers shows another ledger than the policy's.

    Whoever waits for nodes may wait on, as with any QuorumError; the exit code is that of what is not trusted.
    """

    code = "untrusted"


class _OtherPastError(ConsistencyError):
    """The larger tree was proven to continue another smaller one."""

    def __init__(self, message: str, *, root: bytes, proof: list[bytes]) -> None:
        super().__init__(message)
        self.root, self.proof = root, tuple(proof)


async def check_continuity(api: Api, memory: Memory, seen: SeenCheckpoint) -> None:
    """Check that a checkpoint continues what was seen before; remember it.

    Raises:
        AlarmError: it does not. It is kept beside the remembered one, with the evidence.
        QuorumError: the nodes that answer cannot show it.
    """
    old, new = memory.recall(api.trust), seen.trusted.checkpoint
    if old is not None:
        try:
            await check_consistent(api, *sorted((old, new), key=lambda checkpoint: checkpoint.size))
        except ConsistencyError as error:
            raise _alarm(memory, seen.note, error) from error
        old = memory.recall(api.trust)  # others of this program may have remembered a later one meanwhile
    if old is None or old.size < seen.size:
        memory.remember(seen)


def check_offline(memory: Memory, trust: TrustPolicy, notes: Sequence[str]) -> str | None:
    """Check without the ledger what can be checked: a checkpoint of the remembered size is the remembered one.

    Args:
        memory: what this reader saw.
        trust: whom the reader trusts.
        notes: signed checkpoints of one log, shown to be of one log.

    Returns:
        What could not be compared, for people; None when nothing was seen before, or it was compared.

    Raises:
        AlarmError: one is another. It is kept beside the remembered one, with the evidence.
        InvalidError: the file that remembers was damaged.
    """
    shown = {note: checkpoint_in(note) for note in notes}
    try:
        old = memory.recall(trust)
    except InvalidError as damaged:
        if damaged.code != UNSIGNED:
            raise
        return f"not compared with what was seen before: {damaged}"  # the policy may be one of long ago
    if old is None:
        return None
    for note, new in shown.items():
        if old.size == new.size and old.root != new.root:
            error = ConsistencyError(f"another tree of size {new.size} was seen before", code="fork")
            raise _alarm(memory, note, error) from error
    return None if any(new.size == old.size for new in shown.values()) else not_compared(old)


def not_compared(old: Checkpoint) -> str:
    """What to tell of a remembered checkpoint that another one could not be compared with, offline."""
    return (
        f"not compared with the checkpoint of size {old.size} that was seen before: that takes the nodes (wmreg audit)"
    )


def _alarm(memory: Memory, note: str, error: ConsistencyError) -> AlarmError:
    """Keep what proves that a signed note contradicts the remembered one."""
    origin = checkpoint_in(note).origin
    kept, remembered = memory.path(origin), memory.recall_note(origin) or ""
    conflicting = kept.with_suffix(".conflict.note")
    write_atomic(conflicting, note.encode())
    if isinstance(error, _OtherPastError):
        proven: Equivocation | None = Equivocation.of(remembered, note, root=error.root, proof=error.proof)
    else:
        proven = contradiction(None, remembered, note)
    path = None if proven is None else memory.evidence.keep(proven)
    message = (
        f"the log does not continue what was seen before: {error} (evidence: {path or f'{kept} and {conflicting}'})"
    )
    return AlarmError(message, code=error.code, evidence=path)


async def check_latest(api: Api, memory: Memory) -> SeenCheckpoint | None:
    """Fetch the largest checkpoint that the nodes show, check that it continues what was seen, and remember it.

    Returns:
        The largest checkpoint; None when the nodes that answer are behind what was seen, but continue it.

    Raises:
        ConsistencyError: two trees of one size, or a past that changed.
        QuorumError: no node showed one, or those that did cannot show its past.
    """
    largest = largest_of(await api.checkpoints())
    old = memory.recall(api.trust)
    if old is not None and largest.size < old.size:
        await check_still_there(api, old, memory)
        return None
    await check_continuity(api, memory, largest)
    return largest


async def contradiction_by_tiles(api: Api, one: str, other: str) -> Equivocation | None:
    """Evidence that two signed notes contradict each other, from the nodes' tiles; None when nothing shows it."""
    smaller, larger = sorted((one, other), key=lambda note: checkpoint_in(note).size)
    try:
        await check_consistent(api, checkpoint_in(smaller), checkpoint_in(larger))
    except _OtherPastError as error:
        return Equivocation.of(smaller, larger, root=error.root, proof=error.proof)
    except RegistryError:
        return contradiction(None, one, other)
    return None


def largest_of(answers: dict[str, SeenCheckpoint | RegistryError]) -> SeenCheckpoint:
    """The largest checkpoint that any node shows.

    Raises:
        ConsistencyError: two different trees of one size.
        QuorumError: no node shows one that the policy vouches for.
    """
    shown = shown_in(answers).values()
    check_agreement([seen.trusted.checkpoint for seen in shown])
    return max(shown, key=lambda seen: seen.size)


def shown_in(answers: dict[str, SeenCheckpoint | RegistryError]) -> dict[str, SeenCheckpoint]:
    """The checkpoints that nodes show, by URL.

    Raises:
        StrangersError: every node that answers shows one of another ledger.
        QuorumError: no node shows one that the policy vouches for.
    """
    shown = {url: answer for url, answer in answers.items() if isinstance(answer, SeenCheckpoint)}
    if not shown:
        problems = "; ".join(f"{url}: {error}" for url, error in answers.items())
        message = f"no node shows a checkpoint that the policy vouches for: {problems}"
        answered = [error for error in answers.values() if not isinstance(error, UnreachableError)]
        if answered and all(isinstance(error, OtherLogError) for error in answered):
            raise StrangersError(message)
        raise QuorumError(message, code="unavailable")
    return shown


def check_agreement(checkpoints: list[Checkpoint]) -> None:
    """Check that no two checkpoints of one size state different roots; raises ConsistencyError."""
    roots: dict[int, bytes] = {}
    for checkpoint in checkpoints:
        if roots.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root:
            raise ConsistencyError(f"the nodes show two different trees of size {checkpoint.size}", code="fork")


async def check_consistent(api: Api, smaller: Checkpoint, larger: Checkpoint) -> None:
    """Check by the nodes' tiles that a larger tree continues a smaller one.

    Raises:
        ConsistencyError: it does not, or no node's tiles show that it does.
        QuorumError: no node answers.
    """
    if smaller.size == larger.size:
        check_agreement([smaller, larger])
    elif smaller.size:
        await _by_any_node(api, smaller.size, larger, expected=smaller.root)


async def fetch_frontier(api: Api, size: int, larger: Checkpoint) -> merkle.Frontier:
    """The frontier of the first `size` entries of a tree, proven by the nodes' tiles.

    Args:
        api: the nodes.
        size: at most the tree's.
        larger: the tree.

    Raises:
        ConsistencyError: no node's tiles are that tree's.
        QuorumError: no node answers.
    """
    if not size:
        return merkle.Frontier()
    return await _by_any_node(api, size, larger, expected=None)


async def _by_any_node(api: Api, size: int, larger: Checkpoint, *, expected: bytes | None) -> merkle.Frontier:
    problems: dict[str, RegistryError] = {}
    for url in api.transport.urls:
        try:
            return await _proven_frontier(api, url, size, larger, expected)
        except _OtherPastError:  # proven by hashes alone, so no other node can show the contrary
            raise
        except RegistryError as error:  # one node's broken or invented tiles must neither hide nor raise an alarm
            problems[url] = error
    details = "; ".join(f"{url}: {error}" for url, error in problems.items())
    if any(isinstance(error, ConsistencyError) for error in problems.values()):
        raise ConsistencyError(f"no node's tiles lead from size {size} to {larger.size}: {details}")
    raise QuorumError(f"no node showed how size {size} became {larger.size}: {details}", code="unavailable")


async def _proven_frontier(
    api: Api, url: str, size: int, larger: Checkpoint, expected: bytes | None
) -> merkle.Frontier:
    """The frontier of a smaller tree by one node's tiles; its root must be the expected one, if there is one."""
    digests = await _fetch_nodes(api, url, _proof_nodes(size, larger.size), larger.size)

    def read_node(level: int, position: int) -> bytes:
        return digests[level, position]

    root = merkle.root_at(size, read_node)
    proof = merkle.consistency_proof(size, larger.size, read_node)
    merkle.verify_consistency(old_size=size, old_root=root, new_size=larger.size, new_root=larger.root, proof=proof)
    if expected is not None and root != expected:
        message = f"the tree of size {larger.size} continues another one of size {size}"
        raise _OtherPastError(message, root=root, proof=proof)
    return merkle.Frontier(size, read_node)


def _proof_nodes(old_size: int, new_size: int) -> list[tuple[int, int]]:
    """Names of the complete nodes that the proof and the smaller root are made of, found by making them of nothing."""
    names: list[tuple[int, int]] = []

    def note_name(level: int, position: int) -> bytes:
        names.append((level, position))
        return bytes(merkle.HASH_BYTES)

    merkle.consistency_proof(old_size, new_size, note_name)
    merkle.Frontier(old_size, note_name)
    return names


async def _fetch_nodes(api: Api, url: str, names: list[tuple[int, int]], size: int) -> dict[tuple[int, int], bytes]:
    """Hashes of complete nodes, each computed from the tile that its leaves or subtrees stand in."""
    places = {(level, position): _tile_of(level, position) for level, position in names}
    wanted = sorted(set(places.values()))
    fetched = await asyncio.gather(
        *(api.hash_tile(url, level, number, width=tile_width(level, number, size)) for level, number in wanted)
    )
    tile = dict(zip(wanted, fetched, strict=True))
    return {name: _node_in_tile(tile[place], *name) for name, place in places.items()}


def tile_width(level: int, number: int, size: int) -> int:
    """How many hashes tile `number` of a level has in a tree of this size, in [0, 256]."""
    complete = size >> (_LEVELS * level)
    return max(0, min(tiles.TILE_WIDTH, complete - number * tiles.TILE_WIDTH))


def _tile_of(level: int, position: int) -> tuple[int, int]:
    tile_level, height = divmod(level, _LEVELS)
    return tile_level, (position << height) // tiles.TILE_WIDTH


def _node_in_tile(tile: bytes, level: int, position: int) -> bytes:
    height = level % _LEVELS
    first = (position << height) % tiles.TILE_WIDTH
    hashes = [tile[32 * i : 32 * (i + 1)] for i in range(first, first + (1 << height))]
    # The root function works on leaf hashes; a perfect subtree of any level folds alike.
    return merkle.root(hashes)


async def check_still_there(api: Api, old: Checkpoint, memory: Memory) -> None:
    """The nodes' common checkpoint is smaller than the remembered one: does any node still have that tree?

    Raises:
        AlarmError: code fork, a node signed another tree of that size; code rolled_back, a quorum lost it.
        QuorumError: code behind, too few nodes answer to tell.
    """
    answers = await api.own_notes(old.size, wait_s=_CATCH_UP_WAIT_S)
    shown = {url: note for url, note in answers.items() if isinstance(note, Note) and _has_size(note, old.size)}
    for url, note in shown.items():
        if checkpoint_in(str(note)).root != old.root:
            message = f"{url} signed another tree of size {old.size} than the one seen before"
            raise _alarm(memory, str(note), ConsistencyError(message, code="fork"))
    if shown:
        return
    without = [url for url, error in answers.items() if isinstance(error, RegistryError) and error.code == "not_yet"]
    if len(without) >= max(1, quorum_size(api.trust)):
        raise AlarmError(
            f"the log was rolled back: size {old.size} was seen before, and a quorum of nodes does not have it",
            code="rolled_back",
        )
    raise QuorumError(f"the nodes that answer are behind size {old.size}, which was seen before", code="behind")


def _has_size(note: Note, size: int) -> bool:
    return Checkpoint.parse(note.text).size == size
