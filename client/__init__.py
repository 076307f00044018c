"""The owner's and the auditor's side: the SDK, and the `wmreg` command that is made with it.

Nothing here believes a node. What a node says is shown as its word; what counts is checked against the reader's
trust policy, and every tree that was once seen must be continued by every later one.

::

    from client import SyncClient

    with SyncClient("ledger/policy.txt", owner="signing_key.pem") as ledger:
        ledger.publish("mymodel")                                # only now release mymodel/model.safetensors
        claimed = ledger.claim("suspect.safetensors", "mymodel")
        status = ledger.wait_for_verdict(claimed, keep_in="mymodel")
    print(status.prevails, status.state.explain())

`Client` is the same with `async with` and `await`. Errors, each with a stable `code`::

    Exception
    ├── ClientError            this side says no
    │   ├── InvalidError       a file or an answer does not hold: another model, another owner, damaged
    │   ├── InputError         a path or an argument cannot be used
    │   ├── PendingError       no verdict yet; wait again
    │   └── UnfinishedError    the ledger has it, but a file could not be written; mend that and call again
    ├── RegistryError          the ledger's rules, its nodes or its proofs say no
    │   ├── MalformedError     bytes that no honest party sends
    │   ├── RefusedError       the rules say no; the code says which
    │   ├── UntrustedError     genuine perhaps, but your policy does not vouch for it
    │   ├── ProofError
    │   │   ├── InclusionError
    │   │   └── ConsistencyError
    │   │       └── AlarmError the ledger shows another past than before; .evidence is the file that proves it
    │   └── QuorumError        too few nodes answered; call again
    ├── OSError                a file cannot be read or written
    └── RuntimeError           a client was used while it was not open

Everything here is imported when it is first used, so `import client` costs little.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from client.api import Api, Recorded
    from client.bundle import Bundle
    from client.claim_state import ClaimState, NodeVote, Objection, Rival
    from client.continuity import AlarmError
    from client.errors import ClientError, InputError, InvalidError, PendingError, UnfinishedError
    from client.following import Followed
    from client.keystore import create_signing_key, load_signing_key
    from client.log_page import LogLine, LogPage
    from client.sdk.blocking import SyncClient
    from client.sdk.ledger import Client
    from client.sdk.offline import verify
    from client.sdk.results import ClaimStatus, VerifiedCertificate, VerifiedFile
    from client.searching import Found, Hit
    from client.suspects import Suspect, endpoint_at
    from client.watch.cursor import Cursor
    from client.watch.events import Event
    from client.watch.telling import Step
    from registry.certificate import Story
    from registry.equivocation import EquivocationStory
    from registry.errors import (
        ConsistencyError,
        InclusionError,
        MalformedError,
        ProofError,
        QuorumError,
        RefusedError,
        RegistryError,
        UntrustedError,
    )
    from registry.receipt import VerifiedReceipt
    from registry.trust import TrustPolicy
    from registry.verdict import Outcome

_PLACES = {
    "client.api": ("Api", "Recorded"),
    "client.bundle": ("Bundle",),
    "client.claim_state": ("ClaimState", "NodeVote", "Objection", "Rival"),
    "client.continuity": ("AlarmError",),
    "client.errors": ("ClientError", "InputError", "InvalidError", "PendingError", "UnfinishedError"),
    "client.following": ("Followed",),
    "client.keystore": ("create_signing_key", "load_signing_key"),
    "client.log_page": ("LogLine", "LogPage"),
    "client.sdk.blocking": ("SyncClient",),
    "client.sdk.ledger": ("Client",),
    "client.sdk.offline": ("verify",),
    "client.sdk.results": ("ClaimStatus", "VerifiedCertificate", "VerifiedFile"),
    "client.searching": ("Found", "Hit"),
    "client.suspects": ("Suspect", "endpoint_at"),
    "client.watch.cursor": ("Cursor",),
    "client.watch.events": ("Event",),
    "client.watch.telling": ("Step",),
    "registry.certificate": ("Story",),
    "registry.equivocation": ("EquivocationStory",),
    "registry.errors": (
        "ConsistencyError",
        "InclusionError",
        "MalformedError",
        "ProofError",
        "QuorumError",
        "RefusedError",
        "RegistryError",
        "UntrustedError",
    ),
    "registry.receipt": ("VerifiedReceipt",),
    "registry.trust": ("TrustPolicy",),
    "registry.verdict": ("Outcome",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "AlarmError",
    "Api",
    "Bundle",
    "ClaimState",
    "ClaimStatus",
    "Client",
    "ClientError",
    "ConsistencyError",
    "Cursor",
    "EquivocationStory",
    "Event",
    "Followed",
    "Found",
    "Hit",
    "InclusionError",
    "InputError",
    "InvalidError",
    "LogLine",
    "LogPage",
    "MalformedError",
    "NodeVote",
    "Objection",
    "Outcome",
    "PendingError",
    "ProofError",
    "QuorumError",
    "Recorded",
    "RefusedError",
    "RegistryError",
    "Rival",
    "Step",
    "Story",
    "Suspect",
    "SyncClient",
    "TrustPolicy",
    "UnfinishedError",
    "UntrustedError",
    "VerifiedCertificate",
    "VerifiedFile",
    "VerifiedReceipt",
    "create_signing_key",
    "endpoint_at",
    "load_signing_key",
    "verify",
]

if not TYPE_CHECKING:  # type checkers read the imports above

    def __getattr__(name: str) -> object:
        """Import a name of __all__ when it is first used (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """The public names, and whatever was imported already."""
        return sorted({*__all__, *globals()})
