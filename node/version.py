"""The version of this program, for votes and for whoever asks a node."""

from importlib import metadata


def _installed() -> str:
    try:
        return metadata.version("wmreg")
    except metadata.PackageNotFoundError:  # run from a checkout that was not installed
        return "unknown"


VERSION = _installed()
