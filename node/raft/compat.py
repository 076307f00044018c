"""The one place that knows PySyncObj's internals, checked when it is imported.

PySyncObj offers no hooks for a durable journal, another wire format or pre-vote, so the layer replaces private methods
and reads private fields. Both are listed here, and each is looked for in the installed package: another version, or a
patched one, is refused instead of half working. Importing this module also takes unpickling out of PySyncObj: its
wire, its snapshots and its commands all unpickle what peers send.
"""

import logging
import os
import sys
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast, overload

import pysyncobj.journal
import pysyncobj.pickle
import pysyncobj.syncobj
import pysyncobj.version
from pysyncobj.config import SyncObjConf
from pysyncobj.node import Node
from pysyncobj.syncobj import SyncObj

from node.raft.failstop import EXIT_SOFTWARE
from node.raft.types import RaftSettings

SUPPORTED_VERSION = "0.3.17"
FOLLOWER, CANDIDATE, LEADER = 0, 1, 2  # pysyncobj.syncobj._RAFT_STATE
REGULAR, NO_OP = b"\x00", b"\x01"  # type byte of a command; MEMBERSHIP and VERSION (2, 3) are never let in

_NEVER = 10**9

logger = logging.getLogger(__name__)

Value = TypeVar("Value")
Method = TypeVar("Method", bound=Callable[..., Any])


class UnsupportedPySyncObjError(ImportError):
    """The installed PySyncObj is not the one that this layer was written and tested against."""


class _Field(Generic[Value]):
    """One private attribute of SyncObj under a readable, typed name."""

    def __init__(self, stock_name: str) -> None:
        self.stock_name = stock_name

    @overload
    def __get__(self, view: None, owner: type) -> "_Field[Value]": ...
    @overload
    def __get__(self, view: "SyncObjFields", owner: type) -> Value: ...
    def __get__(self, view: "SyncObjFields | None", owner: type) -> "Value | _Field[Value]":
        if view is None:
            return self
        return cast("Value", getattr(view.owner, _mangle(self.stock_name)))

    def __set__(self, view: "SyncObjFields", value: Value) -> None:
        setattr(view.owner, _mangle(self.stock_name), value)


class SyncObjFields:
    """The private state of one SyncObj. Only the raft thread changes it."""

    def __init__(self, owner: SyncObj) -> None:
        self.owner = owner

    state = _Field[int]("__raftState")
    term = _Field[int]("__raftCurrentTerm")
    leader = _Field[Node | None]("__raftLeader")
    other_nodes = _Field[set[Node]]("__otherNodes")
    connected_nodes = _Field[set[Node]]("__connectedNodes")
    next_index = _Field[dict[Node, int]]("__raftNextIndex")
    match_index = _Field[dict[Node, int]]("__raftMatchIndex")
    last_response_s = _Field[dict[Node, float]]("__lastResponseTime")
    commit_index = _Field[int]("__raftCommitIndex")
    last_applied = _Field[int]("__raftLastApplied")
    election_deadline_s = _Field[float]("__raftElectionDeadline")
    next_heartbeat_s = _Field[float]("__newAppendEntriesTime")
    noop_index = _Field[int | None]("__noopIDx")


_REPLACED_METHODS = (
    "_onTick",
    "_checkCommandsToApply",
    "_applyCommand",
    "__applyLogEntries",
    "__doApplyCommand",
    "__sendAppendEntries",
    "__sendNextNodeIdx",
    "__onMessageReceived",
    "__onNodeConnected",
    "__onNodeDisconnected",
    "__onLeaderChanged",
    "__onBecomeLeader",
    "__setState",
    "__tryLogCompaction",
    "__loadDumpFile",
)
_CALLED_METHODS = ("_doDestroy", "addOnTickCallback", "__setCurrentTerm", "__generateRaftTimeout")


class HookedSyncObj(SyncObj):
    """Base of a SyncObj whose methods marked with `replaces` stand in for PySyncObj's private ones."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for method in list(vars(cls).values()):
            for stock_name in getattr(method, "replaces_stock", ()):
                setattr(cls, _mangle(stock_name), method)

    def stock(self, name: str) -> Callable[..., Any]:
        """Return PySyncObj's own method of that name, bound to this object."""
        method = getattr(SyncObj, _mangle(name)).__get__(self)
        return cast("Callable[..., Any]", method)


def replaces(*stock_names: str) -> Callable[[Method], Method]:
    """Mark a method of a HookedSyncObj as the replacement of SyncObj methods.

    Raises:
        ValueError: a name is not among those that are checked against the installed package.
    """
    unknown = set(stock_names).difference(_REPLACED_METHODS)
    if unknown:
        raise ValueError(f"not in the list of replaced methods: {unknown}")

    def mark(method: Method) -> Method:
        vars(method)["replaces_stock"] = stock_names
        return method

    return mark


def stock_settings(settings: RaftSettings) -> SyncObjConf:
    """Translate the settings, and turn off what is not used: the auto thread, compaction, membership changes."""
    configure = cast("Callable[..., SyncObjConf]", SyncObjConf)
    return configure(
        autoTick=False,
        autoTickPeriod=settings.tick_period_s,
        appendEntriesUseBatch=True,
        appendEntriesPeriod=settings.heartbeat_period_s,
        appendEntriesBatchSizeBytes=settings.batch_bytes,
        raftMinTimeout=settings.election_timeout_min_s,
        raftMaxTimeout=settings.election_timeout_max_s,
        leaderFallbackTimeout=settings.leader_fallback_s,
        connectionTimeout=settings.connection_timeout_s,
        connectionRetryTime=settings.connection_retry_s,
        logCompactionMinEntries=_NEVER,
        logCompactionMinTime=_NEVER,
        dynamicMembershipChange=False,
        commandsWaitLeader=False,
        useFork=False,
    )


def monotonic_s() -> float:
    """Return the clock that SyncObj's own deadlines are on, in seconds; looked up so that both see one clock."""
    now: float = vars(pysyncobj.syncobj)["monotonicTime"]()
    return now


def install_unpickling_guard() -> None:
    """End the process at the first attempt of any code in it to load a class by unpickling.

    For the ledger process, which has no use for it. An audit hook cannot be taken out again. Source: PEP 578.
    """

    def guard(event: str, _arguments: tuple[object, ...]) -> None:
        if event == "pickle.find_class":
            logger.critical("fail-stop: something tried to unpickle a class")
            os._exit(EXIT_SOFTWARE)

    sys.addaudithook(guard)


def _mangle(name: str) -> str:
    return f"_SyncObj{name}" if name.startswith("__") else name


def _check_installed_version() -> None:
    if pysyncobj.version.VERSION != SUPPORTED_VERSION:
        raise UnsupportedPySyncObjError(
            f"PySyncObj {pysyncobj.version.VERSION} is installed, {SUPPORTED_VERSION} is needed"
        )
    fields = [field.stock_name for field in vars(SyncObjFields).values() if isinstance(field, _Field)]
    assigned = SyncObj.__init__.__code__.co_names
    missing = [name for name in [*fields, "__raftLog"] if _mangle(name) not in assigned]
    missing += [name for name in _REPLACED_METHODS + _CALLED_METHODS if not hasattr(SyncObj, _mangle(name))]
    if missing:
        raise UnsupportedPySyncObjError(f"the installed PySyncObj lacks {', '.join(missing)}")


def _refuse_to_pickle(*_arguments: object) -> None:
    raise RuntimeError("pickling is taken out of PySyncObj")


def _disable_pickle() -> None:
    for name in ("load", "loads", "dump", "dumps"):
        setattr(pysyncobj.pickle, name, _refuse_to_pickle)
    for name in ("loads", "dumps"):  # bound by name when that module was imported
        setattr(pysyncobj.journal, name, _refuse_to_pickle)


_check_installed_version()
_disable_pickle()
