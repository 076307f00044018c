"""A new ledger is made whole or not at all, and is ready to start."""

from pathlib import Path

import pytest

from node.config import load_config
from node.errors import ConfigError
from node.identity import check_identity, load_identity
from node.init import SIGNER_FILE, STORE_FILE, ClusterOptions, init_cluster
from node.store import Store
from registry.envelope import unseal
from registry.policy import Thresholds
from registry.trust import TrustPolicy

ORIGIN = "init.test/wmreg"


def everything(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*"))


def test_each_node_gets_its_keys_settings_and_the_same_genesis(tmp_path: Path):
    policy_path = init_cluster(tmp_path / "ledger", nodes=3, origin=ORIGIN)
    directories = [tmp_path / "ledger" / f"node-{number}" for number in (1, 2, 3)]
    genesis = {(directory / "genesis").read_bytes() for directory in directories}
    assert len(genesis) == 1
    policy = unseal(genesis.pop(), origin=None).message.policy
    assert policy.quorum == 2
    for directory, member in zip(directories, policy.members, strict=True):
        config = load_config(directory / "node.toml")
        check_identity(load_identity(config.keys), member)
        assert member.api_url == f"http://127.0.0.1:{config.api.port}"
        store = Store(config.state_directory / STORE_FILE)
        assert (store.size, store.applied_index, store.policy) == (1, 0, policy)
        store.close()
        assert (config.state_directory / SIGNER_FILE).exists()
        fetched_bytes = 2 * policy.model_bytes_max + policy.evidence_bytes_max  # for one claim: a base is a model too
        assert fetched_bytes <= config.blobs.cache_bytes_max
    assert TrustPolicy.parse(policy_path.read_text()) == TrustPolicy.of(policy, ORIGIN)


def test_ports_are_distinct_and_free_or_as_asked(tmp_path: Path):
    init_cluster(tmp_path / "free", nodes=4, origin=ORIGIN)
    init_cluster(
        tmp_path / "given",
        nodes=2,
        origin=ORIGIN,
        options=ClusterOptions(api_ports=(7001, 7002), raft_ports=(7003, 7004)),
    )
    free = unseal((tmp_path / "free/node-1/genesis").read_bytes(), origin=None).message.policy
    given = unseal((tmp_path / "given/node-1/genesis").read_bytes(), origin=None).message.policy
    ports = [member.raft_port for member in free.members] + [member.api_url for member in free.members]
    assert len(set(ports)) == 8
    assert [(m.api_url, m.raft_port) for m in given.members] == [
        ("http://127.0.0.1:7001", 7003),
        ("http://127.0.0.1:7002", 7004),
    ]


def test_nodes_on_hosts_of_their_own_listen_where_they_are_told(tmp_path: Path):
    options = ClusterOptions(
        hosts=("node-1", "node-2"), listen="0.0.0.0", api_ports=(8470, 8470), raft_ports=(8471, 8471)
    )
    init_cluster(tmp_path / "ledger", nodes=2, origin=ORIGIN, options=options)
    policy = unseal((tmp_path / "ledger/node-1/genesis").read_bytes(), origin=None).message.policy
    assert [(m.api_url, m.raft_host, m.raft_port) for m in policy.members] == [
        ("http://node-1:8470", "node-1", 8471),
        ("http://node-2:8470", "node-2", 8471),
    ]
    config = load_config(tmp_path / "ledger/node-2/node.toml")
    assert (config.api.host, config.api.port, config.raft.bind_host) == ("0.0.0.0", 8470, "0.0.0.0")


def test_ten_nodes_are_named_in_the_order_of_their_names(tmp_path: Path):
    init_cluster(tmp_path / "ledger", nodes=10, origin=ORIGIN)
    policy = unseal((tmp_path / "ledger/node-01/genesis").read_bytes(), origin=None).message.policy
    assert [member.name for member in policy.members] == [f"node-{number:02d}" for number in range(1, 11)]
    assert policy.quorum == 6


def test_options_reach_policy_and_settings(tmp_path: Path):
    options = ClusterOptions(
        thresholds=Thresholds(permutations_min=99), time_skew_s=7, unreachable_retry_s=5, verifier_threads=2
    )
    init_cluster(tmp_path / "ledger", nodes=1, origin=ORIGIN, options=options)
    policy = unseal((tmp_path / "ledger/node-1/genesis").read_bytes(), origin=None).message.policy
    config = load_config(tmp_path / "ledger/node-1/node.toml")
    assert (policy.thresholds.permutations_min, policy.time_skew_s) == (99, 7)
    assert (config.fetch.unreachable_retry_s, config.verifier.threads) == (5, 2)


@pytest.mark.parametrize("allowed", [False, True])
def test_nodes_follow_claims_into_private_networks_only_where_that_was_asked_for(tmp_path: Path, allowed: bool):
    init_cluster(tmp_path / "ledger", nodes=1, origin=ORIGIN, options=ClusterOptions(allow_private_addresses=allowed))
    assert load_config(tmp_path / "ledger/node-1/node.toml").fetch.allow_private_addresses is allowed


@pytest.mark.parametrize(
    "wrong",
    [
        {"nodes": 0},
        {"nodes": 32},
        {"quorum": 1},
        {"quorum": 4},
        {"origin": "two words"},
        {"origin": ""},
        {"origin": "x" * 200},
        {"options": ClusterOptions(api_ports=(7001,))},
        {"options": ClusterOptions(raft_ports=(1, 2))},
        {"options": ClusterOptions(api_ports=(7001, 7002, 70000))},
        {"options": ClusterOptions(hosts=("node-1", "node-2"), api_ports=(1,) * 3, raft_ports=(2,) * 3)},
        {"options": ClusterOptions(hosts=("node-1", "node-2", "node-3"))},
        {"options": ClusterOptions(hosts=("node-1", "node-2", "0.0.0.0"), api_ports=(1,) * 3, raft_ports=(2,) * 3)},
        {"options": ClusterOptions(api_ports=(1, 1, 2), raft_ports=(3, 4, 5))},
        {"options": ClusterOptions(api_ports=(1, 2, 3), raft_ports=(4, 5, 3))},
        {"host": "192.0.2.1"},
        {"host": "0.0.0.0"},
        {"host": "0"},
        {"host": "::"},
        {"host": ""},
        {"host": "127.0.0.1 x"},
        {"host": "::1%lo"},
        {"origin": "a\x7fb"},
        {"options": ClusterOptions(time_skew_s=0)},
        {"options": ClusterOptions(thresholds=Thresholds(gamma_permille=1001))},
    ],
)
def test_a_wrong_argument_makes_nothing(tmp_path: Path, wrong: dict[str, object]):
    with pytest.raises(ConfigError):
        init_cluster(tmp_path / "ledger", **{"nodes": 3, "origin": ORIGIN, **wrong})
    assert everything(tmp_path) == []


def test_a_directory_that_is_not_empty_is_left_alone(tmp_path: Path):
    init_cluster(tmp_path / "ledger", nodes=1, origin=ORIGIN)
    before = {path: path.read_bytes() for path in everything(tmp_path) if path.is_file()}
    with pytest.raises(ConfigError, match="not an empty directory"):
        init_cluster(tmp_path / "ledger", nodes=1, origin=ORIGIN)
    assert {path: path.read_bytes() for path in everything(tmp_path) if path.is_file()} == before


def test_an_empty_directory_and_missing_parents_are_fine(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    init_cluster(tmp_path / "empty", nodes=1, origin=ORIGIN)
    init_cluster(tmp_path / "a" / "b", nodes=1, origin=ORIGIN)
    assert (tmp_path / "empty/policy.txt").exists()
    assert (tmp_path / "a/b/policy.txt").exists()


def test_the_directory_where_the_caller_stands_is_kept_and_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    inode = tmp_path.stat().st_ino
    assert init_cluster(Path(), nodes=2, origin=ORIGIN).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node-1", "node-2", "policy.txt"]
    assert Path.cwd().stat().st_ino == inode


def test_a_failure_leaves_an_existing_directory_empty(tmp_path: Path):
    with pytest.raises(ConfigError):
        init_cluster(tmp_path, nodes=3, origin=ORIGIN, host="192.0.2.1")
    assert everything(tmp_path) == []


def test_a_directory_that_cannot_be_made_is_named_and_no_temporary_one():
    with pytest.raises(OSError, match=r"'/proc/foo'$") as raised:
        init_cluster(Path("/proc/foo"), nodes=1, origin="init.test")
    assert raised.value.filename == "/proc/foo"
