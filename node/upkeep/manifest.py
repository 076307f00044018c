"""What a backup is of and what is in it: manifest.json, written last, with the hash of every file and of itself."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.errors import ConfigError
from registry import hashed_json
from registry.errors import MalformedError

MANIFEST_FILE = "manifest.json"
FORMAT = "wmreg-backup/1"
MANIFEST_BYTES_MAX = 2**20
_BLOCK_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One backup.

    Attributes:
        name: of the node.
        origin: of its ledger.
        time_s: when it was made.
        size, root: of the ledger in it.
        checkpoint: the node's own signed checkpoint of this size, or of the last smaller one that it had signed; empty
            if it had signed none. It is evidence of what was signed, and nothing to sign on from.
        files: SHA-256 of every other file, by its path in the backup.
    """

    name: str
    origin: str
    time_s: int
    size: int
    root: str
    checkpoint: str
    files: Mapping[str, str]

    def encode(self) -> bytes:
        """The file."""
        content = {"format": FORMAT, **{key: getattr(self, key) for key in self.__dataclass_fields__}}
        return hashed_json.encode(content, domain=FORMAT)

    @classmethod
    def load(cls, directory: Path) -> "Manifest":
        """Read a backup's manifest.

        Raises:
            ConfigError: there is none, or it is damaged.
        """
        path = directory / MANIFEST_FILE
        try:
            raw = path.read_bytes()
            return hashed_json.decode(raw, cls._of, cls.encode, what="backup's manifest", bytes_max=MANIFEST_BYTES_MAX)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; not a whole backup") from error
        except MalformedError as error:
            raise ConfigError(f"{path}: {error}; use another backup") from error

    @classmethod
    def _of(cls, content: dict[str, Any]) -> "Manifest":
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        return cls(**{key: content[key] for key in cls.__dataclass_fields__})

    def check_files(self, directory: Path) -> None:
        """Check that the backup holds exactly the listed files, each as it was written.

        Raises:
            ConfigError: naming the first that is missing, changed or not listed.
        """
        found = hash_files(directory)
        for path in sorted(found.keys() | self.files.keys()):
            if found.get(path) != self.files.get(path):
                what = (
                    "missing" if path not in found else "not in the manifest" if path not in self.files else "changed"
                )
                raise ConfigError(f"{directory / path}: {what} since the backup was made; use another backup")


def hash_files(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below a directory but the manifest, by its path in it."""
    files = sorted(path for path in directory.rglob("*") if not path.is_dir())
    return {str(path.relative_to(directory)): _hash(path) for path in files if path != directory / MANIFEST_FILE}


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
