"""A real node serves the explorer, or not: node.toml says so."""

import urllib.request
from pathlib import Path

import pytest
from cluster import Cluster


@pytest.mark.slow
@pytest.mark.parametrize("is_on", [True, False])
def test_a_node_serves_the_explorer_where_its_settings_say_so(tmp_path: Path, *, is_on: bool):
    cluster = Cluster.make(tmp_path / "ledger", nodes=1)
    settings = cluster.nodes[0].directory / "node.toml"
    written = settings.read_text()
    assert "explorer = true" in written
    settings.write_text(written if is_on else written.replace("explorer = true", "explorer = false"))
    with cluster:
        node = cluster.nodes[0]
        assert node.get("/explorer/").status == (200 if is_on else 404)
        assert node.get("/explorer/static/style.css").status == (200 if is_on else 404)
        assert node.get("/v1/node").status == 200
        if is_on:
            with urllib.request.urlopen(f"{node.url}/") as answer:  # noqa: S310 -- http only
                assert answer.url == f"{node.url}/explorer/"
                assert b"The ledger" in answer.read()
