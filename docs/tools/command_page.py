"""Writes docs/reference/command.md from the command itself, so that the page cannot say anything else.

Verbs in the order of a model's life, each with its usage, its text and a table of its options, as click knows them.
`make docs` writes the page; tests/docs/test_reference.py compares it.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from client.command import EXIT_CODES, wmreg

PAGE = Path(__file__).parents[1] / "reference" / "command.md"
_AS_IT_IS = "\b"  # click's sign for a paragraph that is not wrapped
_HEAD = f"""# The command

<!-- Made by docs/tools/command_page.py from the command itself; `make docs` makes it again. -->

`wmreg VERB --help` says the same. With `--json` a verb prints one JSON document on stdout.

{EXIT_CODES}
"""


def render() -> str:
    """The page."""
    context = click.Context(wmreg, info_name="wmreg", max_content_width=100_000)
    return _HEAD + "".join(_sections(wmreg, context)).rstrip() + "\n"


def _sections(group: click.Group, context: click.Context) -> list[str]:
    """Of what a group holds, under the names by which it is called."""
    found = ((name, group.get_command(context, name)) for name in group.list_commands(context))
    return [_section(name, command, context) for name, command in found if command is not None]


def _section(name: str, command: click.Command, parent: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=parent, max_content_width=100_000)
    depth = context.command_path.count(" ") + 1
    parts = [f"\n{'#' * depth} {context.command_path}\n"]
    usage = " ".join(command.collect_usage_pieces(context))
    parts.append(f"\n```text\n{context.command_path} {usage}\n```\n")
    parts.append(_text(command.help))
    rows = [row for parameter in command.get_params(context) for row in _row(parameter, context)]
    if rows:
        parts.append("\n| option | |\n|---|---|\n" + "".join(rows))
    parts.append(_epilog(command.epilog))
    if isinstance(command, click.Group):
        parts += _sections(command, context)
    return "".join(parts)


def _row(parameter: click.Parameter, context: click.Context) -> Iterator[str]:
    record = parameter.get_help_record(context)  # arguments have none: they are in the usage
    if record is not None and "--help" not in parameter.opts:
        names, text = (_cell(" ".join(part.split())) for part in record)
        yield f"| `{names}` | {text} |\n"


def _cell(text: str) -> str:
    """Text in a table: no bar ends the cell, and no angle bracket is HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _text(text: str | None) -> str:
    """A help text in Markdown."""
    parts = []
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        if paragraph.startswith(_AS_IT_IS):
            parts.append(f"\n```text\n{paragraph.removeprefix(_AS_IT_IS).strip()}\n```\n")
        elif paragraph:
            parts.append(f"\n{paragraph.replace('<', '&lt;')}\n")
    return "".join(parts)


def _epilog(text: str | None) -> str:
    if not text:
        return ""
    example = inspect.cleandoc(text).replace(_AS_IT_IS, "").removeprefix("Example:").strip()
    return f"\nExample:\n\n```console\n{example}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
