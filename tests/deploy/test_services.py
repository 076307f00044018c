"""systemd and Kubernetes treat a node as its exit codes, its keys and its promises ask."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.errors import INCONSISTENT, INVALID, USAGE
from node.config import load_config
from node.main import EXIT_CONFIG, EXIT_LEFT, EXIT_STATE

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
WATCH = (DEPLOY / "systemd" / "wmreg-watch.service").read_text()
UNIT = (DEPLOY / "systemd" / "wmreg-node@.service").read_text()
NODE = yaml.safe_load((KUBERNETES / "node" / "statefulset.yaml").read_text())["spec"]
POD: dict[str, Any] = NODE["template"]["spec"]


def setting(name: str, unit: str = UNIT) -> list[str]:
    return [line.partition("=")[2] for line in unit.splitlines() if line.startswith(f"{name}=")]


def test_systemd_does_not_restart_what_needs_a_person():
    assert setting("RestartPreventExitStatus") == [f"{EXIT_CONFIG} {EXIT_STATE} {EXIT_LEFT}"]


def test_systemd_does_not_restart_a_watch_that_raised_an_alarm_or_was_called_wrongly():
    assert setting("RestartPreventExitStatus", WATCH) == [f"{INVALID} {USAGE} {INCONSISTENT}"]
    assert setting("ExecStart", WATCH) == ["/opt/wmreg/bin/wmreg watch $WMREG_WATCH"]


def test_the_unit_may_write_the_nodes_state_and_nothing_else():
    assert setting("ReadWritePaths") == ["/var/lib/wmreg/%i/state"]
    assert setting("ProtectSystem") == ["strict"]


def test_the_verifier_may_still_give_up_what_it_can():
    assert setting("RestrictNamespaces") == ["user net"]
    assert {"landlock_create_ruleset", "landlock_restrict_self", "seccomp"} <= set(
        setting("SystemCallFilter")[0].split()
    )


def test_one_pod_at_a_time_has_a_nodes_keys_and_state():
    claim = yaml.safe_load((KUBERNETES / "node" / "claim.yaml").read_text())["spec"]
    assert NODE["replicas"] == 1
    assert claim["accessModes"] == ["ReadWriteOncePod"]
    assert "volumeClaimTemplates" not in NODE


def test_every_container_is_restricted():
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*POD["initContainers"], *POD["containers"]]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_a_node_without_a_leader_is_not_restarted_but_gets_no_traffic():
    (node,) = POD["containers"]
    assert node["livenessProbe"]["httpGet"]["path"] == "/metrics"
    assert node["readinessProbe"]["httpGet"]["path"] == "/health"
    service = yaml.safe_load((KUBERNETES / "node" / "service.yaml").read_text())["spec"]
    assert service["publishNotReadyAddresses"] is True


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_nodes_settings_keys_and_ports_are_its_own(number: int):
    config = load_config(KUBERNETES / f"node-{number}" / "node.toml")
    (node,) = POD["containers"]
    ports = {port["name"]: port["containerPort"] for port in node["ports"]}
    assert config.name == f"node-{number}"
    assert (config.api.port, config.api.host) == (ports["api"], "0.0.0.0")
    patched = (KUBERNETES / f"node-{number}" / "kustomization.yaml").read_text()
    assert f"secretName, value: wmreg-node-{number}-keys" in patched
    assert POD["volumes"][0]["name"] == "secret"  # what the patch's path counts on
    assert POD["volumes"][1]["name"] == "genesis"


def test_no_secret_is_in_a_file():
    kinds = [
        document["kind"]
        for path in sorted(KUBERNETES.rglob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]
    assert "Secret" not in kinds
    assert [path.name for path in DEPLOY.rglob("*.pem")] == []


def test_the_check_script_passes_over_what_is_missing_loudly_and_not_when_strict(tmp_path: Path):
    for tool in ("bash", "dirname", "mktemp", "rm", "sed", "touch"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    environment = {"PATH": str(tmp_path)}
    script = [str(tmp_path / "bash"), "-c", 'PATH=$2; cd "$1"; sed "/^PATH=/d" deploy/check.sh > "$3/check.sh"', "-"]
    subprocess.run([*script, str(ROOT), str(tmp_path), str(tmp_path)], env=environment, check=True)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "check.sh").rename(tmp_path / "deploy" / "check.sh")
    command = [str(tmp_path / "bash"), str(tmp_path / "deploy" / "check.sh")]
    lenient = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    strict = subprocess.run(command, env={**environment, "STRICT": "1"}, capture_output=True, text=True, check=False)
    assert (lenient.returncode, strict.returncode) == (0, 1)
    assert "SKIPPED  Dockerfile: no hadolint on this machine" in lenient.stderr
    assert "0 passed, 0 failed" in lenient.stdout


@pytest.mark.slow
def test_every_tool_that_is_here_finds_nothing():
    done = subprocess.run(
        [str(DEPLOY / "check.sh")], capture_output=True, text=True, check=False, env={**os.environ, "STRICT": "0"}
    )
    assert done.returncode == 0, done.stderr
