"""Everything that the ledger's rules can object to, split by who is at fault.

::

    RegistryError            .code is stable: part of the API, of exit codes and of the tests
    ├── MalformedError       no honest party sends these bytes
    ├── RefusedError         well formed; the rules say no (bad signature, time skew, unknown publication …)
    ├── UntrustedError       well formed and perhaps genuine; the reader's own policy does not vouch for it
    ├── ProofError           a log that does not prove what it says
    │   ├── InclusionError   this entry is not in that tree
    │   └── ConsistencyError that tree does not continue this one: a rewritten past or a fork
    └── QuorumError          too few nodes answered

A caller's own mistake (a negative size, say) is a ValueError.
"""

_SHOWN_CHARACTERS_MAX = 80


def shown(value: object) -> str:
    """What somebody else wrote, as an error's message shows it: quoted, and at most 80 characters of it."""
    text = repr(value[:_SHOWN_CHARACTERS_MAX] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[: _SHOWN_CHARACTERS_MAX - 1]}…"


class RegistryError(Exception):
    """Base of all errors of the registry.

    Attributes:
        code: stable, machine-readable name of the problem, lower case with underscores.
    """

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class MalformedError(RegistryError):
    """Bytes that no honest party sends."""

    code = "malformed"


class RefusedError(RegistryError):
    """A well-formed message that the rules refuse."""

    code = "refused"


class UntrustedError(RegistryError):
    """The reader's policy does not vouch for this."""

    code = "untrusted"


class ProofError(RegistryError):
    """A proof that does not prove."""

    code = "proof"


class InclusionError(ProofError):
    """The entry is not shown to be in the tree."""

    code = "inclusion"


class ConsistencyError(ProofError):
    """The larger tree does not continue the smaller one."""

    code = "consistency"


class QuorumError(RegistryError):
    """Too few nodes answered."""

    code = "quorum"
