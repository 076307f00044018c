"""Several ledgers in one configuration file: what `--ledger NAME` stands for.

::

    default = "home"

    [ledger.home]
    policy = "home/policy.txt"            # relative to this file, or absolute, or ~/...
    signing_key = "home/signing_key.pem"
    passphrase_file = "home/passphrase"
    ca_file = "authorities.pem"
    patience_s = 120

The file is $WMREG_CONFIG, else wmreg/config.toml in $XDG_CONFIG_HOME or ~/.config. A value stands behind the command
line and the environment, and before the defaults: it is click's default map. Nothing else of a ledger depends on the
name: what was seen of it, and the owner's acts in it, are kept by its origin.
"""

import os
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from client.errors import InputError
from client.files import read_text

CONFIG_BYTES_MAX = 64 * 1024
LINE_CHARACTERS_MAX = 4096  # a key's depth is within it: tomllib takes the square of that in time
PATIENCE_S_MAX = 86_400
_TOP = frozenset({"default", "ledger"})
_FILES = {"policy": "policy_path", "signing_key": "signing_key_path", "passphrase_file": "passphrase_file"}
_FILES |= {"ca_file": "ca_file"}  # each key and the command's parameter for it
_PATIENCE = "patience_s"
_MADE_LATER = frozenset({"signing_key"})  # wmreg keygen may be about to make it
KEYS = (*_FILES, _PATIENCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """A configuration file that has been read and checked.

    Attributes:
        path: the file.
        default: the ledger that is meant where none is named; None for none.
        ledgers: the settings of each, by its name.
    """

    path: Path
    default: str | None
    ledgers: Mapping[str, Mapping[str, str | float]]

    def defaults_of(self, name: str) -> dict[str, Callable[[], object]]:
        """What a ledger's profile says, by the command's parameters; a value is looked at only when it is used.

        Raises:
            InputError: there is no such profile.
        """
        if name not in self.ledgers:
            known = f"it has {', '.join(sorted(self.ledgers))}" if self.ledgers else "it has none"
            if not self.path.exists():
                known = "there is no such file yet"
            raise InputError(f"{self.path}: no profile [ledger.{name}]; {known}")
        told = self.ledgers[name]
        values: dict[str, Callable[[], object]] = {
            _FILES[key]: partial(self._file, name, key) for key in _FILES if key in told
        }
        if _PATIENCE in told:
            values[_PATIENCE] = partial(float, told[_PATIENCE])
        return values

    def _file(self, name: str, key: str) -> str:
        """The file that a key names; raises InputError when there is none."""
        named = Path(str(self.ledgers[name][key]))
        try:
            path = self.path.parent.absolute() / named.expanduser()
        except RuntimeError as error:  # pathlib's way to say that there is no such user
            message = f"{self.path}: [ledger.{name}] {key}: {named}: nobody's home directory; give the whole path"
            raise InputError(message, code="file") from error
        if not path.is_file() and (key not in _MADE_LATER or path.exists()):
            message = f"{self.path}: [ledger.{name}] {key}: {path}: no such file; paths are relative to {self.path}"
            raise InputError(message, code="file")
        return str(path)


def config_path() -> tuple[Path, bool]:
    """Where the configuration file is, and whether the environment names it, so that it must be there."""
    named = os.environ.get("WMREG_CONFIG")
    if named:
        return Path(named), True
    home = os.environ.get("XDG_CONFIG_HOME", "")
    directory = Path(home) if Path(home).is_absolute() else Path.home() / ".config"  # the rule of XDG
    return directory / "wmreg" / "config.toml", False


def load_profiles() -> Profiles:
    """Read the configuration file; one that nobody named need not be there.

    Raises:
        InputError: it is not TOML, or has a key, a type or a value that is none, naming file and key.
        OSError: it cannot be read.
    """
    path, is_named = config_path()
    if not is_named and not path.exists():
        return Profiles(path=path, default=None, ledgers={})
    text = read_text(path, CONFIG_BYTES_MAX)
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > LINE_CHARACTERS_MAX:
            message = f"{path}: line {number} has more than {LINE_CHARACTERS_MAX} characters; no profile needs so many"
            raise InputError(message, code="malformed")
    try:
        content = tomllib.loads(text)
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply; a profile is a table, [ledger.NAME]", code="malformed") from error
    except ValueError as error:  # also of a number with too many digits
        raise InputError(f"{path}: not TOML: {error}", code="malformed") from error
    try:
        return _read(path, content)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}", code="malformed") from error


def _read(path: Path, content: Mapping[str, object]) -> Profiles:
    _check_keys("", content, _TOP)
    default, ledgers = content.get("default"), content.get("ledger", {})
    if not isinstance(ledgers, dict):
        raise TypeError("ledger: expected a table for each ledger, [ledger.NAME]")
    checked = {name: _ledger(name, told) for name, told in ledgers.items()}
    if default is not None and (not isinstance(default, str) or default not in checked):
        known = ", ".join(sorted(checked)) or "none"
        raise ValueError(f"default: {default!r} is no ledger of this file; it has {known}")
    return Profiles(path=path, default=default, ledgers=checked)


def _ledger(name: str, told: object) -> dict[str, str | float]:
    where = f"[ledger.{name}] "
    if not name:
        raise ValueError(f"{where}: a ledger needs a name")
    if not isinstance(told, dict):
        raise TypeError(f"ledger.{name}: expected a table, [ledger.{name}]")
    _check_keys(where, told, KEYS)
    for key in set(_FILES) & set(told):
        if not isinstance(told[key], str) or not told[key] or "\0" in told[key]:
            raise TypeError(f'{where}{key}: expected the path of a file in quotes, such as "{key}.pem"')
    patience_s = told.get(_PATIENCE, 0)
    if isinstance(patience_s, bool) or not isinstance(patience_s, int | float):
        raise TypeError(f"{where}{_PATIENCE}: expected a number of seconds, such as 60")
    if not 0 <= patience_s <= PATIENCE_S_MAX:  # nan is not, either
        raise ValueError(f"{where}{_PATIENCE}: expected from 0 to {PATIENCE_S_MAX} seconds")
    return told


def _check_keys(where: str, told: Mapping[str, object], known: Collection[str]) -> None:
    for key in told:
        if key not in known:
            raise ValueError(f"{where}{key}: no such key; there are {', '.join(sorted(known))}")
