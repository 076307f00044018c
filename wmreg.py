"""Where the command `wmreg` begins: the only import name that cannot be another distribution's.

The four packages have everyday names (STYLE: the import names are the folder names), so an environment may hold others
of these names. Python would then import a stranger's package, or a mixture of two in one folder. Who starts `wmreg` is
told so in one line, and whose the package is.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

NAMES = ("registry", "node", "client", "wm")
USAGE = 2
REMEDY = "install wmreg into an environment of its own, such as a new venv or with pipx"


def main() -> None:
    """Entry point of the installed command."""
    trouble = elsewhere(Path(__file__).resolve().parent)
    if trouble is None:
        try:
            from client.command import main as run  # noqa: PLC0415 -- a stranger's package may be in its place
        except ImportError:
            trouble = shared()
            if trouble is None:
                raise
    if trouble is not None:
        print(f"wmreg: {trouble}; {REMEDY}", file=sys.stderr)  # noqa: T201 -- nothing of ours can print it
        sys.exit(USAGE)
    run()


def elsewhere(home: Path) -> str | None:
    """Whose package would be imported instead of ours, found before any is imported; None when all four are ours.

    Args:
        home: the directory that our packages are in, beside this file.
    """
    for name in NAMES:
        spec = find_spec(name)
        origin = None if spec is None else spec.origin
        if origin is None:
            return f"its package {name} is not there, or another folder of that name is found first"
        if Path(origin).resolve().parent != home / name:
            return f"the import name {name} is taken: {origin} is found before wmreg's own"
    return None


def shared() -> str | None:
    """Which other distribution has put files into our packages; None when there is none.

    It reads the lists of files of all distributions, a tenth of a second: for when something could not be imported.
    """
    from importlib.metadata import packages_distributions  # noqa: PLC0415 -- as of the docstring

    owners = packages_distributions()
    for name in NAMES:
        others = sorted(set(owners.get(name, [])) - {"wmreg"})
        if others:
            return f"the distribution {', '.join(others)} has installed a package {name} over wmreg's own"
    return None


if __name__ == "__main__":
    main()
