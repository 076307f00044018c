"""Dashboard and alerts name only what a node measures, with labels that it has; the runbook tells of every alert."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from nodeset import NodeSet
from prometheus_client.parser import text_string_to_metric_families

DEPLOY = Path(__file__).parents[2] / "deploy"
MONITORING = DEPLOY / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "wmreg.json").read_text())
ALERTS = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
PROMETHEUS_OWN = {"up"}
PROMETHEUS_LABELS = {"job", "instance", "le"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
# Labels of metrics that have no sample while all is well.
QUIET = {"wmreg_problem": {"part"}, "wmreg_refused_requests_total": {"code"}, "wmreg_refused_entries_total": {"code"}}


def expressions() -> list[tuple[str, str]]:
    """Every query, by whose it is."""
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    asked = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]
    return asked + [(rule["alert"], rule["expr"]) for rule in ALERTS]


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Metrics that a query reads, each with the labels that it chooses by."""
    found = re.findall(r"\b((?:wmreg|process)_[a-z_]+|up)\b(?:\{([^}]*)\})?", expression)
    return [(name, set(re.findall(r"(\w+)\s*[=!]~?", labels))) for name, labels in found]


async def exposition(directory: Path) -> str:
    """What a real node says at /metrics."""
    async with NodeSet(directory, nodes=1) as nodes:
        await nodes.serve()
        async with nodes.session.get(f"{nodes.nodes[0].url}/metrics") as answer:
            return await answer.text()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Names of samples, each with its labels."""
    text = asyncio.run(exposition(tmp_path_factory.mktemp("measured") / "ledger"))
    families = list(text_string_to_metric_families(text))
    names = {family.name + suffix: set() for family in families for suffix in SUFFIXES[family.type]}
    for family in families:
        for sample in family.samples:
            names[sample.name] = set(sample.labels)
    return names | {name: labels for name, labels in QUIET.items() if name in names}


def test_every_metric_of_every_panel_and_alert_exists_with_its_labels(measured: dict[str, set[str]]):
    for whose, expression in expressions():
        read = [(name, labels) for name, labels in selectors(expression) if name not in PROMETHEUS_OWN]
        assert read or "up" in expression, whose
        for name, labels in read:
            assert name in measured, f"{whose}: a node has no {name}"
            assert labels <= measured[name] | PROMETHEUS_LABELS, f"{whose}: {name} has no {labels - measured[name]}"


def test_what_must_not_go_unseen_is_on_the_dashboard_or_an_alert(measured: dict[str, set[str]]):
    seen = {name for _, expression in expressions() for name, _ in selectors(expression)}
    unseen = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in measured if name.startswith("wmreg_")} - {
        re.sub(r"_bucket$", "", name) for name in seen
    }
    # Read by nobody alone: the policy's quorum, the cosignatures of one checkpoint, and the journal's length.
    assert unseen == {"wmreg_quorum", "wmreg_checkpoint_cosignatures", "wmreg_raft_journal_entries"}


def test_a_metric_that_does_not_exist_would_be_found():
    assert selectors('rate(wmreg_made_up_total{code="x", why=~"y"}[5m])') == [("wmreg_made_up_total", {"code", "why"})]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_has_a_severity_a_test_and_a_section_in_the_runbook(rule: dict[str, Any]):
    name = rule["alert"]
    assert rule["labels"]["severity"] in {"page", "ticket", "info"}
    assert rule["annotations"]["summary"]
    assert re.search(rf"alertname: {name}\n\s+exp_alerts:\n", (MONITORING / "alerts_test.yml").read_text()), (
        f"{name} is never expected in alerts_test.yml"
    )
    assert re.search(rf"^### .*\b{name}\b", (DEPLOY / "runbook.md").read_text(), flags=re.MULTILINE)


def test_the_runbook_tells_of_no_alert_that_there_is_not():
    told = re.findall(r"\bWmreg[A-Z]\w+", (DEPLOY / "runbook.md").read_text())
    assert set(told) == {rule["alert"] for rule in ALERTS}


def test_panels_are_numbered_once_and_do_not_overlap():
    assert len({panel["id"] for panel in DASHBOARD["panels"] if "id" in panel}) >= 20
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_every_panel_asks_the_provisioned_data_source():
    source = yaml.safe_load((MONITORING / "grafana" / "datasources" / "prometheus.yaml").read_text())
    (uid,) = (entry["uid"] for entry in source["datasources"])
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {uid}
