"""Promised: what was acknowledged stays in the log, whatever old message comes after it.

PySyncObj with its own journal breaks that, and this file proves it: the first test is the fault, the second the mend,
both by the same messages.
"""

import pytest
from pysyncobj import SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport
from raft_simulation import StockNode

from node.raft.journal import DurableJournal
from node.raft.journal_format import JournalError
from node.raft.stock_journal import StockJournal

ENTRIES = [(b"\x00x%d" % index, index, 1) for index in range(2, 31)]


class RecordingTransport(Transport):
    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.sent: list[tuple[str, dict]] = []

    def send(self, node: Node, message: dict) -> bool:
        self.sent.append((node.id, message))
        return True


def follower(node_class: type[StockNode]) -> tuple[StockNode, RecordingTransport]:
    settings = SyncObjConf(autoTick=False, dynamicMembershipChange=False)
    node = node_class(Node("B"), [Node("A"), Node("C")], settings, transportClass=RecordingTransport)
    transport = node._SyncObj__transport
    transport._onNodeConnected(Node("A"))
    transport._onNodeConnected(Node("C"))
    return node, transport


def append(transport: RecordingTransport, entries: list) -> dict:
    message = {
        "type": "append_entries",
        "term": 1,
        "commit_index": 1,
        "entries": entries,
        "prevLogIdx": 1,
        "prevLogTerm": 0,
    }
    transport._onMessageReceived(Node("A"), message)
    return transport.sent[-1][1]


def votes_for_a_log_that_ends_at_10(transport: RecordingTransport) -> bool:
    transport.sent.clear()
    vote = {"type": "request_vote", "term": 2, "last_log_index": 10, "last_log_term": 1}
    transport._onMessageReceived(Node("C"), vote)
    return [message["type"] for _, message in transport.sent] == ["response_vote"]


def test_pysyncobj_itself_discards_acknowledged_entries_on_a_resend():
    node, transport = follower(StockNode)
    assert append(transport, ENTRIES)["next_node_idx"] == 31
    append(transport, ENTRIES[:9])
    assert node._getRaftLogSize() == 10
    assert votes_for_a_log_that_ends_at_10(transport)


def test_with_our_journal_a_resend_discards_nothing(tmp_path):
    journal = DurableJournal(tmp_path / "journal", cache_bytes_max=10**6)

    class Mended(StockNode):
        @property
        def _SyncObj__raftLog(self) -> StockJournal:  # noqa: N802
            return StockJournal(journal)

        @_SyncObj__raftLog.setter
        def _SyncObj__raftLog(self, _stock: object) -> None:  # noqa: N802
            pass

    node, transport = follower(Mended)
    assert append(transport, ENTRIES)["next_node_idx"] == 31
    append(transport, ENTRIES[:9])
    assert node._getRaftLogSize() == 30
    assert not votes_for_a_log_that_ends_at_10(transport)
    journal.close()


@pytest.fixture
def stock(tmp_path):
    made = StockJournal(DurableJournal(tmp_path / "journal", cache_bytes_max=10**6))
    for entry in [(b"\x01", 1, 0), *ENTRIES]:
        made.add(*entry)
    yield made
    made._destroy()


def test_positions_count_from_zero_and_from_the_end(stock):
    assert stock[0] == (b"\x01", 1, 0)
    assert stock[-1] == ENTRIES[-1]
    assert stock[28:] == ENTRIES[-2:]
    assert stock[1:3] == ENTRIES[:2]
    assert len(stock) == 30


@pytest.mark.parametrize("position", [30, -31])
def test_a_position_beyond_the_log_is_an_index_error(stock, position):
    with pytest.raises(IndexError):
        stock[position]


def test_compaction_and_clearing_are_refused(stock):
    with pytest.raises(JournalError, match="never compacted"):
        stock.deleteEntriesTo(5)
    with pytest.raises(JournalError, match="never cleared"):
        stock.clear()
    assert len(stock) == 30


def test_the_commit_index_is_at_least_the_first_entry(stock):
    assert stock.getRaftCommitIndex() == 1
    stock.setRaftCommitIndex(7)
    assert stock.getRaftCommitIndex() == 7


def test_term_and_vote_come_back(stock):
    stock.setCurrentTerm(4, "A")
    stock.onOneSecondTimer()
    assert (stock.getCurrentTerm(), stock.getVotedForNodeId()) == (4, "A")
