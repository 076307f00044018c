"""The image's command line and health check, run as ordinary processes: no container engine is needed for them."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from cluster import eventually

from node.config import load_config
from node.init import ClusterOptions, init_cluster

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "docker" / "Dockerfile").read_text()
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()


def instruction(name: str) -> list[str]:
    """The words of the image's last instruction of a name, in its JSON form."""
    words: list[str] = json.loads(DOCKERFILE.split(f"\n{name} ")[-1].replace("\\\n", "").splitlines()[0])
    return words


def entry_point(directory: Path) -> list[str]:
    """What the container runs, with the image's directory replaced by another."""
    words = [*instruction("ENTRYPOINT"), *instruction("CMD")]
    assert words[0] == "wmreg"
    here = [sys.executable, "-m", "client.command", *words[1:]]
    return [str(directory) if word == "/node" else word for word in here]


def health_check(directory: Path) -> subprocess.CompletedProcess[str]:
    """Run what HEALTHCHECK runs."""
    words = json.loads(DOCKERFILE.split("HEALTHCHECK ")[1].split("CMD ")[1].splitlines()[0])
    assert words == ["python", "/usr/local/bin/wmreg-healthcheck", "/node"]
    assert "COPY deploy/docker/healthcheck.py /usr/local/bin/wmreg-healthcheck" in DOCKERFILE
    command = [sys.executable, str(DEPLOY / "docker" / "healthcheck.py"), str(directory)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment, check=False)


@pytest.mark.cluster
def test_the_containers_command_becomes_healthy_and_stops_at_sigterm(tmp_path: Path):
    init_cluster(tmp_path / "ledger", nodes=1, origin="container.test", options=ClusterOptions(listen="0.0.0.0"))
    directory = tmp_path / "ledger" / "node-1"
    assert health_check(directory).returncode == 1
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(entry_point(directory), cwd=ROOT, stderr=log)
        try:
            eventually(lambda: health_check(directory).returncode == 0, timeout_s=60, what="a healthy node")
            assert health_check(directory).stdout == "ok\n"
        finally:
            process.send_signal(signal.SIGTERM)
            stopped = process.wait(30)
    assert stopped == 0
    assert '"message": "ready"' in (tmp_path / "log").read_text()


class Unhealthy(BaseHTTPRequestHandler):
    """A node with trouble."""

    def do_GET(self) -> None:
        body = json.dumps({"status": "unhealthy", "problems": {"disk": "3 MiB free"}}).encode()
        self.send_response(503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def ill(tmp_path: Path) -> Iterator[Path]:
    """The directory of a node that answers 503."""
    server = HTTPServer(("127.0.0.1", 0), Unhealthy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    options = ClusterOptions(api_ports=(server.server_port,), raft_ports=(1,))
    init_cluster(tmp_path / "ledger", nodes=1, origin="ill.test", options=options)
    yield tmp_path / "ledger" / "node-1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_node_with_trouble_is_unhealthy_and_the_check_says_why(ill: Path):
    assert load_config(ill / "node.toml").api.host == "127.0.0.1"
    done = health_check(ill)
    assert (done.returncode, done.stdout) == (1, "disk: 3 MiB free\n")


def test_settings_that_cannot_be_read_are_no_health(tmp_path: Path):
    done = health_check(tmp_path)
    assert done.returncode == 2
    assert "node.toml" in done.stderr


def test_the_image_runs_as_nobody_in_particular_and_keeps_no_state_of_its_own():
    assert "\nUSER 10001:10001\n" in DOCKERFILE
    assert "\nVOLUME" not in DOCKERFILE
    assert "://" not in DOCKERFILE, "an index is named by the builder"


def test_the_build_context_has_what_the_build_copies_and_no_keys():
    assert next(line for line in IGNORED if not line.startswith("#")) == "*"
    let_in = [line.removeprefix("!").removesuffix("/**") for line in IGNORED if line.startswith("!")]
    assert [name for name in let_in if not (ROOT / name).exists()] == []
    packages = {"registry", "node", "client", "wm", "wmreg.py"}
    assert packages | {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= set(let_in)
    assert IGNORED.index("**/*.pem") > IGNORED.index("!node/**")


def test_the_layer_of_dependencies_lists_those_of_the_project():
    code = DOCKERFILE.split('RUN python -m venv /opt/wmreg \\\n && python -c "')[1].split('"\n')[0].split('" \\')[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = {line.split(">")[0].split("=")[0] for line in done.stdout.splitlines()}
    assert {"pysyncobj", "torch", "aiohttp"} <= listed
    assert "wmreg[wm]" not in listed
    assert "pytest" not in listed
    assert DOCKERFILE.count("--no-deps --constraint constraints.txt '.[node]'") == 2


def test_each_compose_node_sees_its_own_directory_and_may_write_its_state_alone():
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
    nodes = {name: service for name, service in services.items() if name.startswith("node-")}
    assert list(nodes) == ["node-1", "node-2", "node-3"]
    for name, service in nodes.items():
        whole, state = service["volumes"]
        assert whole.endswith(f"/{name}:/node:ro")
        assert state.endswith(f"/{name}/state:/node/state")
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    published = [port for service in services.values() for port in service["ports"]]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []
