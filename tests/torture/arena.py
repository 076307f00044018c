"""A cluster under load, and at the end the judgement: nothing acknowledged is lost, files are sound, it came back."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cluster import Cluster, NodeProcess
from torture.load import Load, check_files, converged, leader_of, load
from torture.measured import SEED, Measured
from torture.proxy import INNER_HOST, Network

from node.init import ClusterOptions
from registry.envelope import unseal

OPTIONS = ClusterOptions(submissions_per_s=0, submit_timeout_s=3)
PROGRESS_S = 60


class Arena:
    """A cluster under load, and what is done to it."""

    def __init__(self, cluster: Cluster, running: Load, network: Network | None) -> None:
        self.cluster, self.load, self._network, self.events = cluster, running, network, 0

    @property
    def network(self) -> Network:
        assert self._network is not None
        return self._network

    def progress(self, count: int = 20) -> None:
        self.load.wait_for_more(count, timeout_s=PROGRESS_S)

    def leader_and_others(self) -> tuple[NodeProcess, list[NodeProcess]]:
        leader = leader_of(self.cluster)
        return leader, [node for node in self.cluster.nodes if node is not leader]


@contextlib.contextmanager
def judged_arena(
    tmp_path: Path, measured: Measured, fault: str, *, pause_max_s: float, nodes: int = 3, through_proxy: bool = False
) -> Iterator[Arena]:
    """Make a cluster under load; at the end let everything run, and judge."""
    cluster = Cluster.make(tmp_path / "ledger", nodes=nodes, options=OPTIONS)
    network = put_between(cluster) if through_proxy else None
    try:
        cluster.start()
        with load(cluster, seed=SEED) as running:
            arena = Arena(cluster, running, network)
            arena.progress()
            yield arena
            if network is not None:
                network.delay(0)
                network.heal()
            for node in cluster.nodes:
                if node.process is None:
                    node.start()
            cluster.wait_until_healthy()
            arena.progress()
        verdict = converged(cluster, running)
        measured.add(fault, events=arena.events, verdict=verdict, pause_max_s=pause_max_s)
        check_files(cluster)
        assert verdict.is_sound, verdict
        assert verdict.longest_pause_s <= pause_max_s
    finally:
        for node in cluster.nodes:
            node.kill()
        if network is not None:
            network.stop()


def put_between(cluster: Cluster) -> Network:
    """Let the nodes listen where only the proxies find them."""
    ports = {}
    for node in cluster.nodes:
        settings = node.directory / "node.toml"
        settings.write_text(settings.read_text().replace('bind_host = ""', f'bind_host = "{INNER_HOST}"'))
        policy = unseal((node.directory / "genesis").read_bytes(), origin=None).message.policy
        ports = {member.name: member.raft_port for member in policy.members}
    by_name = {node.name: node for node in cluster.nodes}

    def pid_of(name: str) -> int | None:
        process = by_name[name].process
        return None if process is None else process.pid

    return Network(ports, pid_of).start()
