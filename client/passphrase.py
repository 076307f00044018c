"""The passphrase of a signing key: from a file that only its owner may read, or asked for on a terminal.

There is no option for it: other users and the shell's history see what is typed on a command line or stands in the
environment.
"""

import sys
from pathlib import Path

import click

from client.errors import InputError
from client.files import check_private, read_text

FILE_BYTES_MAX = 4096
PASSPHRASE_BYTES_MAX = 1023  # more is refused by what encrypts the key


def find(key: Path, file: Path | None) -> bytes:
    """The passphrase of a key that there is.

    Args:
        key: names the key to who is asked.
        file: what holds the passphrase; None to ask.

    Raises:
        InputError: the file holds none, or others may read it; it is too long; there is no terminal to ask on.
        OSError: the file cannot be read.
    """
    if file is not None:
        return read(file)
    _check_terminal(key)
    return _ask(f"Passphrase of {key}", is_new=False)


def choose(key: Path, file: Path | None) -> bytes:
    """A passphrase for a new key, asked for twice; errors as of `find`."""
    if file is not None:
        return read(file)
    _check_terminal(key)
    return _ask(f"New passphrase for {key}", is_new=True)


def read(file: Path) -> bytes:
    """The first line of a file, without its end.

    Raises:
        InputError: it is empty, too long or no text, or others may read it.
        OSError: it cannot be read.
    """
    check_private(file)
    line = read_text(file, FILE_BYTES_MAX).partition("\n")[0].removesuffix("\r")
    if not line:
        raise InputError(f"{file}: its first line is empty, and should be a passphrase", code="passphrase")
    return _limited(line, called=f"{file}: its first line")


def _check_terminal(key: Path) -> None:
    streams = (sys.stdin, sys.stderr)
    if not all(stream is not None and not stream.closed and stream.isatty() for stream in streams):
        message = f"{key}: a passphrase is needed, and there is no terminal to ask for it; give --passphrase-file"
        raise InputError(message, code="passphrase")


def _ask(words: str, *, is_new: bool) -> bytes:
    text: str = click.prompt(words, hide_input=True, confirmation_prompt=is_new, err=True)
    return _limited(text, called=words)


def _limited(text: str, *, called: str) -> bytes:
    passphrase = text.encode()
    if len(passphrase) > PASSPHRASE_BYTES_MAX:
        message = f"{called}: {len(passphrase)} bytes; take a passphrase of at most {PASSPHRASE_BYTES_MAX}"
        raise InputError(message, code="passphrase")
    return passphrase
