"""A copy of a ledger's entries on disk, in the layout in which nodes serve them (C2SP tlog-tiles).

::

    checkpoint                 the signed checkpoint that the copy was made for
    tile/entries/x001/x234/067 256 entries
    tile/entries/000.p/17      the last, partial bundle
    checkpoints/x001/x234/067  cosigned checkpoints of 256 sizes, those that the audit asked for, joined like entries

Full bundles never change and are fetched once, so an interrupted download is resumed where it stopped. Nothing here is
believed: the audit hashes every entry and compares the root with the checkpoint's, and it checks every signature.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.api import Api
from client.continuity import tile_width
from client.files import read_limited, read_text, write_atomic
from client.transport import ANSWER_BYTES_MAX
from registry import tiles
from registry.errors import ConsistencyError, MalformedError
from registry.note import NOTE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Mirror:
    """The copy in one directory."""

    directory: Path

    @property
    def checkpoint(self) -> Path:
        """The signed checkpoint."""
        return self.directory / "checkpoint"

    def bundle(self, number: int, width: int) -> Path:
        """The file of an entry bundle."""
        return self.directory / "tile" / "entries" / tiles.tile_path(number, width)

    def load_checkpoint(self) -> str:
        """Read the signed checkpoint; raises OSError when there is none."""
        return read_text(self.checkpoint, NOTE_BYTES_MAX)

    def store_checkpoint(self, note: str) -> None:
        """Keep the signed checkpoint of the copy; raises OSError when the directory cannot be written."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_atomic(self.checkpoint, note.encode())

    async def download(self, api: Api, note: str, size: int) -> int:
        """Fetch what is missing of a ledger of this size; return the number of bundles that were fetched.

        Raises:
            QuorumError: no node gives a bundle.
            OSError: the directory cannot be written.
        """
        fetched = 0
        for number in range(-(-size // tiles.TILE_WIDTH)):
            width = tile_width(0, number, size)
            path = self.bundle(number, width)
            if not path.exists():
                entries = await api.entry_bundle(number, width=width)
                self._store(path, tiles.entry_bundle(entries))
                self._drop_partial(number, width)
                fetched += 1
        self.store_checkpoint(note)
        return fetched

    def entries(self, size: int) -> Iterator[bytes]:
        """Read the entries of a ledger of this size, from entry 0 on.

        Raises:
            ConsistencyError: a bundle is damaged, so the copy is not the log that its checkpoint states.
            OSError: a bundle is missing.
        """
        for number in range(-(-size // tiles.TILE_WIDTH)):
            yield from self._entries_of(number, size)

    def entry(self, index: int, size: int) -> bytes:
        """Read one entry of a ledger of this size; raises as `entries` does."""
        number, place = divmod(index, tiles.TILE_WIDTH)
        return self._entries_of(number, size)[place]

    def _entries_of(self, number: int, size: int) -> list[bytes]:
        width = tile_width(0, number, size)
        path = self.bundle(number, width)
        try:
            bundle = tiles.parse_entry_bundle(read_limited(path, ANSWER_BYTES_MAX))
        except MalformedError as error:
            raise ConsistencyError(f"{path}: {error}; remove it to fetch it again", code="mirror") from error
        if len(bundle) != width:
            raise ConsistencyError(f"{path}: {len(bundle)} entries instead of {width}", code="mirror")
        return bundle

    def notes(self, number: int) -> list[str]:
        """Read the signed checkpoints of the sizes [256·number, 256·(number + 1)) that were kept, by size.

        Raises:
            ConsistencyError: the file is damaged.
        """
        path = self.notes_path(number)
        if not path.exists():
            return []
        try:
            return [raw.decode() for raw in tiles.parse_entry_bundle(read_limited(path, ANSWER_BYTES_MAX))]
        except (MalformedError, UnicodeDecodeError) as error:
            raise ConsistencyError(f"{path}: damaged", code="mirror") from error

    def store_notes(self, number: int, notes: Sequence[str]) -> None:
        """Keep the signed checkpoints of these sizes; raises OSError when the directory cannot be written."""
        self._store(self.notes_path(number), tiles.entry_bundle([note.encode() for note in notes]))

    def notes_path(self, number: int) -> Path:
        """The file of the signed checkpoints of 256 sizes."""
        return self.directory / "checkpoints" / tiles.tile_path(number)

    def _store(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)

    def _drop_partial(self, number: int, width: int) -> None:
        """Remove narrower copies of a bundle that has grown."""
        for old in self.bundle(number, 1).parent.glob("*"):
            if old.name.isdigit() and int(old.name) < width:
                old.unlink()
