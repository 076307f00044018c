"""Writes docs/reference/sdk.md from the docstrings and signatures of what `client` exports.

Signatures are read from the source and not from the running objects, so that they are spelled as they are written, by
every version of Python. `make docs` writes the page; tests/docs/test_reference.py compares it.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import client
from client import sdk
from client.sdk import inputs

PAGE = Path(__file__).parents[1] / "reference" / "sdk.md"
_SECTIONS = {"Args:", "Returns:", "Raises:", "Attributes:"}
_FIELD = re.compile(r"    (\*?[\w, *]+): (.*)")
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_HEAD = """# The SDK's classes and functions

<!-- Made by docs/tools/sdk_page.py from the docstrings; `make docs` makes it again. -->

All of it is imported from `client`. [The SDK](../sdk.md) shows how it is used, and what to do about each error.
"""
_ORDER = ("Client", "SyncClient", "verify", "ClaimStatus", "VerifiedCertificate", "VerifiedFile", "Recorded")
_BELOW = {  # told in a line; their files say the rest
    "Api": "The HTTP API as calls, for what `Client` does not do: `Client.api`.",
}


def render() -> str:
    """The page."""
    names = [*_ORDER, *sorted(set(client.__all__) - {*_ORDER})]
    functions = [name for name in names if name not in _ORDER and not inspect.isclass(getattr(client, name))]
    errors = [name for name in names if name.endswith("Error")]
    rest = [name for name in names if name not in {*functions, *errors}]
    parts = [_HEAD, _forms(), *map(_told, [*rest, *functions]), "\n## Errors\n", "\nEach has a stable `code`.\n"]
    return "".join([*parts, *(_error(name) for name in errors)])


def _forms() -> str:
    """The names in signatures that are not exported: what may be handed in, and the defaults."""
    aliases = [part for part in ast.parse(inspect.getsource(inputs)).body if isinstance(part, ast.AnnAssign)]
    defaults = [part for part in ast.parse(inspect.getsource(sdk)).body if isinstance(part, ast.Assign)]
    spelled = [f"{ast.unparse(part.target)} = {ast.unparse(part.value)}" for part in aliases if part.value]
    lines = [
        *spelled,
        "OnChange = Callable[[ClaimState], None]",
        "Warn = Callable[[str], None]",
        *map(ast.unparse, defaults),
    ]
    return f"\nSignatures name these forms and defaults:\n\n```python\n{chr(10).join(lines)}\n```\n"


def _told(name: str) -> str:
    if name in _BELOW:
        return f"\n## {name}\n\n{_BELOW[name]}\n"
    told = getattr(client, name)
    node = _node(told)
    heading = f"\n## {name}\n"
    if isinstance(node, ast.ClassDef):
        return heading + _class(told, node)
    if not isinstance(node, Function):
        raise TypeError(f"{name} is neither a class nor a function")
    return heading + _signature(node, name) + _text(told.__doc__)


def _class(told: type, node: ast.ClassDef) -> str:
    inherited = [_node(base) for base in told.__mro__[1:] if base.__module__.startswith("client.sdk.")]
    bodies = [node, *(base for base in inherited if isinstance(base, ast.ClassDef))]
    functions = [part for body in bodies for part in body.body if isinstance(part, Function)]
    made = [_signature(part, node.name, skip_self=True) for part in functions if part.name == "__init__"][:1]
    fields = _fields(node)
    if told is client.SyncClient:  # they would be told twice
        methods = ["\nIts methods are those of `Client` without `async`, but for `api`.\n"]
    else:
        methods = [_method(part) for part in functions if not part.name.startswith("_")]
    return "".join([*made, _text(told.__doc__), fields, *methods])


def _fields(node: ast.ClassDef) -> str:
    """The fields of a dataclass, as they are written, or the members of an enumeration."""
    lines = [ast.unparse(part) for part in node.body if isinstance(part, ast.AnnAssign | ast.Assign)]
    written = "\n".join(lines).replace("'", '"')  # as the formatter spells it
    return f"\n```python\n{written}\n```\n" if lines else ""


def _method(node: Function) -> str:
    is_property = any(ast.unparse(decorator) == "property" for decorator in node.decorator_list)
    text = _text(ast.get_docstring(node))
    if is_property:
        return f"\n### {node.name}\n\n```python\n{node.name}: {_returned(node)}\n```\n{text}"
    return f"\n### {node.name}\n{_signature(node, node.name, skip_self=True)}{text}"


def _signature(node: Function, name: str, *, skip_self: bool = False) -> str:
    arguments = ast.unparse(node.args)
    if skip_self:
        arguments = re.sub(r"^(self|cls)(, )?", "", arguments)
    word = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    returned = "" if node.name == "__init__" else f" -> {_returned(node)}"
    return f"\n```python\n{word}{_wrapped(name, arguments)}{returned}\n```\n"


def _wrapped(name: str, arguments: str) -> str:
    """A call in one line, or with each argument in its own."""
    if len(name) + len(arguments) < 100:
        return f"{name}({arguments})"
    lines = re.split(r", (?![^\[]*\])", arguments)
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + ")"


def _returned(node: Function) -> str:
    return ast.unparse(node.returns).strip("'") if node.returns else "None"


def _error(name: str) -> str:
    told = getattr(client, name)
    return f"\n### {name}\n\nA `{told.__bases__[0].__name__}`. {_text(told.__doc__).lstrip()}"


def _node(told: object) -> ast.AST:
    """Where a class or function is written."""
    (node,) = ast.parse(inspect.getsource(told)).body  # type: ignore[arg-type]
    return node


def _text(docstring: str | None) -> str:
    """A docstring of Google's style in Markdown."""
    paragraphs = inspect.cleandoc(docstring or "").split("\n\n")
    return "".join(f"\n{paragraph}\n" for paragraph in map(_paragraph, paragraphs) if paragraph)


def _paragraph(paragraph: str) -> str:
    head, _, body = paragraph.partition("\n")
    if head not in _SECTIONS:
        return paragraph
    if head == "Returns:":
        return f"Returns: {' '.join(body.split())}"
    items = list(_items(body))
    title = "Raises:\n\n" if head == "Raises:" else ""
    return title + "\n".join(items)


def _items(body: str) -> Iterator[str]:
    """The named items of a section; a line that is indented further belongs to the one before it."""
    current = ""
    for line in body.split("\n"):
        found = _FIELD.fullmatch(line)
        if found and not line.startswith("     "):
            if current:
                yield current
            names = ", ".join(f"`{name.strip()}`" for name in found[1].split(","))
            current = f"* {names}: {found[2]}"
        else:
            current += f" {line.strip()}"
    if current:
        yield current


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
