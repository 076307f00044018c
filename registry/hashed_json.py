"""Files that prove something: JSON in one spelling with a hash over itself.

The hash proves nothing to anybody; it tells damage from distrust before anything else is looked at.
"""

import binascii
import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

from registry.errors import MalformedError, shown

T = TypeVar("T")
Content = dict[str, Any]


def spell(content: Content) -> bytes:
    """The one spelling of a JSON document."""
    return (json.dumps(content, sort_keys=True, indent=1, ensure_ascii=True) + "\n").encode()


def encode(content: Content, *, domain: str) -> bytes:
    """Spell a document with its hash; `domain` sets one kind of file apart from another."""
    digest = hashlib.sha256(f"{domain}\0".encode() + spell(content)).hexdigest()
    return spell(content | {"sha256": digest})


def decode(raw: bytes, read: Callable[[Content], T], again: Callable[[T], bytes], *, what: str, bytes_max: int) -> T:
    """Read a file.

    Args:
        raw: the file.
        read: makes the value of the document; may raise any of the errors that wrong JSON leads to.
        again: spells the value, which must give the file.
        what: names the file in the error.
        bytes_max: longest file looked at.

    Raises:
        MalformedError: too large, not such a document, or damaged (any changed byte).
    """
    if len(raw) > bytes_max:
        raise MalformedError(f"{what}: more than {bytes_max} bytes", code="too_large")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:  # what the parser says of a broken file helps nobody to mend it
        message = f"the {what} is damaged: cut off, or not JSON at all"
        raise MalformedError(message, code="damaged") from error
    try:
        value = read(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        detail = f"no field {shown(error.args[0])}" if isinstance(error, KeyError) else shown(str(error))
        raise MalformedError(f"the {what} is damaged: {detail}", code="damaged") from error
    if again(value) != raw:
        raise MalformedError(f"the {what} is damaged: its content is not what its own hash says", code="damaged")
    return value
