"""What keeps a node from starting or from serving; the ledger's own errors are in registry.errors.

::

    NodeError
    ├── ConfigError             node.toml or a key file is wrong: exit 2, nothing was touched
    ├── LeftError               this node is no member any more: exit 6
    ├── InconsistentStateError  what is on disk contradicts itself or what this node signed: exit 5
    ├── UnavailableError        the ledger cannot take or answer this now: HTTP 503
    └── SelfCheckError          what this node made does not hold, so it is not sent: HTTP 500
"""


class NodeError(Exception):
    """Base of the node's own errors."""


class ConfigError(NodeError):
    """A setting or key file that the operator has to mend; the message names it."""


class LeftError(NodeError):
    """The members have agreed to go on without this node; the message says what may be done."""


class InconsistentStateError(NodeError):
    """Stored state that no honest run leaves behind; the message says what differs and the way out."""


class UnavailableError(NodeError):
    """Not now: no leader, no quorum, or too busy.

    Attributes:
        code: stable word, such as no_leader; part of the API.
        retry_after_s: when to come back.
    """

    def __init__(self, message: str, *, code: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.code, self.retry_after_s = code, retry_after_s


class SelfCheckError(NodeError):
    """A receipt or certificate of this node's own making that a reader would refuse: a fault of the node.

    Attributes:
        code: self_check; part of the API.
    """

    code = "self_check"
