"""Agreement on one order of commands among nodes that may crash: Raft, on PySyncObj, hardened.

What it promises: a command that was applied anywhere is durable on a majority, and is applied on every node, once,
at the same place. What it does not promise: anything against a member that lies; signatures and cosignatures are
there for that. Importing this package takes unpickling out of PySyncObj for the whole process.
"""

from node.raft.certificate import NodeCertificate, certificate_pins, make_certificate
from node.raft.compat import UnsupportedPySyncObjError, install_unpickling_guard
from node.raft.journal_format import JournalBusyError, JournalCorruptError, JournalError
from node.raft.journal_reader import JournalReader, copy_committed
from node.raft.profiles import PROFILES, settings_of
from node.raft.service import RaftService
from node.raft.types import RaftMembers, RaftPeer, RaftSettings, RaftStatus, StateMachine

__all__ = [
    "PROFILES",
    "JournalBusyError",
    "JournalCorruptError",
    "JournalError",
    "JournalReader",
    "NodeCertificate",
    "RaftMembers",
    "RaftPeer",
    "RaftService",
    "RaftSettings",
    "RaftStatus",
    "StateMachine",
    "UnsupportedPySyncObjError",
    "certificate_pins",
    "copy_committed",
    "install_unpickling_guard",
    "make_certificate",
    "settings_of",
]
