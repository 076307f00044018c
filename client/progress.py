"""Signs of life on stderr, only where a person looks at it.

rich is imported when the first sign is needed; a pipe, a log file and --json get nothing.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def is_watched() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


@contextmanager
def status_line(text: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner with a line of text; yield what replaces the text."""
    if not is_watched():
        yield lambda _text: None
        return
    from rich.console import Console

    with Console(stderr=True).status(text) as status:
        yield status.update


@contextmanager
def phases() -> Iterator[Callable[[str, int, int, str], None]]:
    """Show one bar for each phase of a long computation.

    Yields:
        A function of phase, steps done, steps in all and a short remark.
    """
    if not is_watched():
        yield lambda _phase, _done, _total, _detail: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[detail]}"), console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def show(phase: str, done: int, total: int, detail: str) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total, detail=detail)
            bars.update(tasks[phase], completed=done, total=total, detail=detail)

        yield show
