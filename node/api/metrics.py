"""What a node measures of itself, for Prometheus; deploy/README.md says what to watch.

Nearly all of it is read from the node's parts when it is asked for, so the parts count nothing that they do not need.
Each node has a registry of its own: two nodes in one process do not add up.

Source: https://prometheus.io/docs/practices/naming/.
"""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from node.api.health import problems, tolerates
from node.api.services import Services
from node.version import VERSION

_Labelled: TypeAlias = Mapping[str, float]
RAFT_STATES = ("leader", "candidate", "follower")
VERIFIER_STATES = ("stopped", "starting", "ready", "busy")
REGISTRY = web.AppKey("registry", CollectorRegistry)


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics: everything that is measured, in Prometheus' text format."""
    text = generate_latest(request.app[REGISTRY])
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"})


def make_registry(node: Services) -> CollectorRegistry:
    """A registry that reads this node whenever it is asked."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(node))
    ProcessCollector(registry=registry)
    return registry


class NodeCollector(Collector):
    """Reads the parts of a node."""

    def __init__(self, node: Services) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """Every metric of the node."""
        yield _labelled("wmreg_build_info", "The program's version.", "version", {VERSION: 1})
        yield from self._log()
        yield from self._consensus()
        yield from self._work()
        yield from self._trouble()

    def _log(self) -> Iterator[Metric]:
        ledger, latest, store = self._node.ledger, self._node.gatherer.latest, self._node.ledger.store
        sizes = {
            "applied": store.size,
            "signed": ledger.signed.value,
            "cosigned": self._node.gatherer.latest_size,
            "searchable": self._node.index.indexed.value,
        }
        yield _labelled("wmreg_log_size_entries", "Entries of the log that have come this far.", "step", sizes)
        yield _labelled(
            "wmreg_log_lag_seconds",
            "For how long entries have waited for this step.",
            "step",
            self._node.watch.lags_s(),
        )
        yield GaugeMetricFamily(
            "wmreg_checkpoint_timestamp_seconds",
            "When a quorum had cosigned the latest checkpoint, by its own clocks; 0 before the first.",
            value=(latest.not_after_s or 0) if latest else 0,
        )
        yield GaugeMetricFamily(
            "wmreg_checkpoint_cosignatures",
            "Nodes whose cosignatures this node holds on the latest checkpoint; it stops at a quorum.",
            value=len(latest.times_s) if latest else 0,
        )

    def _consensus(self) -> Iterator[Metric]:
        raft, policy = self._node.raft_status(), self._node.ledger.store.policy
        states = {state: float(raft.state == state) for state in RAFT_STATES}
        yield _labelled("wmreg_raft_state", "1 for the role that this node has.", "state", states)
        gauges = {
            "wmreg_raft_term": ("Raft's term.", raft.term),
            "wmreg_raft_leader_known": ("Whether this node knows a leader.", int(raft.leader is not None)),
            "wmreg_raft_connected_peers": ("Members that this node is connected to.", len(raft.connected)),
            "wmreg_raft_commit_index": ("Last command that a majority has stored.", raft.commit_index),
            "wmreg_raft_applied_index": ("Last command that this node has applied.", raft.applied_index),
            "wmreg_raft_journal_entries": ("Entries in the journal.", raft.journal_entries),
            "wmreg_members": ("Members of the ledger.", len(policy.members)),
            "wmreg_quorum": ("Members whose agreement binds.", policy.quorum),
            "wmreg_failure_tolerance": (
                "How many more members may fail before the ledger stops, as far as this node sees.",
                tolerates(self._node),
            ),
        }
        yield from (GaugeMetricFamily(name, text, value=value) for name, (text, value) in gauges.items())
        yield CounterMetricFamily(
            "wmreg_raft_rejected_connections", "Connections of strangers to Raft's port.", raft.rejected_connections
        )

    def _work(self) -> Iterator[Metric]:
        node, ledger = self._node, self._node.ledger
        claims: dict[str, float] = {str(outcome).lower(): count for outcome, count in ledger.verdicts().items()}
        yield _labelled(
            "wmreg_claims",
            "Claims by the verdict that they had when this node first saw one; open, if there is none yet.",
            "verdict",
            {"open": ledger.claims_open(), **claims},
        )
        queues = {
            "submission": ledger.submissions_waiting,
            "vote": node.voter.queue,
            "verification": node.verifier.waiting,
        }
        yield _labelled("wmreg_queue_length", "What waits, by what it waits for.", "queue", queues)
        states = {state: float(node.verifier.state == state) for state in VERIFIER_STATES}
        yield _labelled("wmreg_verifier_state", "1 for the state of the verifier process.", "state", states)
        yield from node.verifier.durations.collect()
        yield _counted(
            "wmreg_verifier_processes_ended",
            "Verifier processes that ended, by why; each serves one claim.",
            node.verifier.ended,
            label="why",
        )
        yield CounterMetricFamily(
            "wmreg_unusable_public_models",
            "Files of controls_directory that were no controls of a claim since they do not fit, for every claim.",
            node.verifier.public.unusable_total,
        )
        stored = {"uploads": node.blobs.bytes_total, "fetched": node.fetcher.cache_bytes}
        yield _labelled("wmreg_blob_bytes", "Bytes of files, by store.", "store", stored)
        yield GaugeMetricFamily(
            "wmreg_disk_free_bytes",
            "What the node may still write on the disk of its state.",
            value=node.space.free_bytes,
        )
        yield GaugeMetricFamily("wmreg_event_streams", "Open streams of events.", value=node.streams.open)

    def _trouble(self) -> Iterator[Metric]:
        node, found = self._node, problems(self._node)
        yield GaugeMetricFamily("wmreg_healthy", "Whether /health is 200.", value=int(not found))
        yield _labelled("wmreg_problem", "1 for each part that has trouble.", "part", dict.fromkeys(found, 1.0))
        yield _counted("wmreg_refused_requests", "Requests that were answered by an error.", node.refused)
        yield _counted(
            "wmreg_refused_entries", "Entries that were ordered and that the rules refused.", node.ledger.refused
        )
        yield CounterMetricFamily(
            "wmreg_self_check_failures",
            "Receipts and certificates of this node's making that did not hold and were not sent; must stay 0.",
            node.gatherer.self_check_failures,
        )


def _labelled(name: str, text: str, label: str, values: _Labelled) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family


def _counted(name: str, text: str, counts: Mapping[str, int], *, label: str = "code") -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for code, count in sorted(counts.items()):
        family.add_metric([code], count)
    return family
