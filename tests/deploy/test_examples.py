"""The example settings are what a node reads, and the proxies' limits leave the ledger's own work alone."""

import re
from pathlib import Path

import pytest
import yaml

from node.api.reads import COSTS
from node.config import load_config
from node.init import ClusterOptions, init_cluster

DEPLOY = Path(__file__).parents[2] / "deploy"
NGINX = (DEPLOY / "proxy" / "nginx.conf").read_text()
ADDRESS_LIMITS = ("submissions_per_s", "reads_per_s", "claims_per_hour", "address_connections_max")


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("examples/*.toml")), ids=lambda path: path.name)
def test_an_example_is_read_by_the_nodes_own_parser(path: Path):
    config = load_config(path)
    assert config.keys.signing == path.parent / "keys" / "signing.pem"
    assert config.api.port == 8470


def test_behind_a_proxy_nothing_is_counted_for_its_one_address():
    behind = load_config(DEPLOY / "examples" / "node-behind-proxy.toml").api
    in_front = load_config(DEPLOY / "examples" / "node.toml").api
    assert [getattr(behind, name) for name in ADDRESS_LIMITS] == [0, 0, 0, 0]
    assert all(getattr(in_front, name) > 0 for name in ADDRESS_LIMITS)
    assert behind.key_submissions_per_s > 0
    assert behind.key_claims_per_hour > 0
    assert (behind.host, behind.tls_certificate) == ("127.0.0.1", None)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_kubernetes_settings_are_those_that_cluster_init_writes(tmp_path: Path, number: int):
    options = ClusterOptions(
        hosts=("node-1", "node-2", "node-3"), listen="0.0.0.0", api_ports=(8470,) * 3, raft_ports=(8471,) * 3
    )
    init_cluster(tmp_path / "ledger", nodes=3, origin="registry.example/wmreg", options=options)
    shown = DEPLOY / "kubernetes" / f"node-{number}" / "node.toml"
    assert shown.read_text() == (tmp_path / "ledger" / f"node-{number}" / "node.toml").read_text()


def test_prometheus_and_compose_name_the_same_nodes():
    settings = yaml.safe_load((DEPLOY / "monitoring" / "prometheus.yml").read_text())
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
    asked = settings["scrape_configs"][0]["static_configs"][0]["targets"]
    assert asked == [f"{name}:8470" for name in services if name.startswith("node-")]


def test_nginx_takes_the_largest_upload_and_keeps_none_of_it():
    (gibibytes,) = re.findall(r"^\s*client_max_body_size (\d+)g;", NGINX, flags=re.MULTILINE)
    largest = load_config(DEPLOY / "examples" / "node-behind-proxy.toml").blobs.blob_bytes_max
    assert int(gibibytes) * 2**30 >= largest
    assert "proxy_request_buffering off;" in NGINX
    assert "proxy_buffering off;" in NGINX
    assert f"max_size {largest >> 30}GiB" in (DEPLOY / "proxy" / "Caddyfile").read_text()


def test_nginx_sets_no_limit_on_what_the_other_nodes_ask_for():
    free = [path for path, cost in COSTS.items() if cost == 0 and path.startswith("/v1/")]
    (unlimited,) = re.findall(r"location ~ (\S+) \{\n\s+proxy_pass", NGINX)
    assert free
    assert [path for path in free if not re.search(unlimited, path)] == []
    limited = [path for path, cost in COSTS.items() if cost and path.startswith("/v1/")]
    assert [path for path in limited if re.search(unlimited, path)] == []


def test_nginx_waits_longer_than_a_long_poll():
    assert {int(seconds) for seconds in re.findall(r"proxy_read_timeout (\d+)s", NGINX)} == {120}
    assert "wait_s" in NGINX
