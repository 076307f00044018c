"""The demo's eight acts: a ledger, an owner, a thief, a bystander, a liar; claims, endpoints, a certificate, an audit.

What the story says of numbers and verdicts is read from what the commands found, and compared with what it must be.
"""

import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, cast

from client.demo.shell import DemoError, Shell, stop
from client.errors import DONE, UNAVAILABLE
from client.keystore import create_watermark_key, load_signing_key, save_watermark_key
from registry.policy import Thresholds

NODES = 3
ORIGIN = "demo.example/wmreg"
START_TIMEOUT_S = 60
SERVED = "digits"  # the name of the model behind each URL
THIEFS_SHARE = "0.1"
CAROLS_SEED, MALLORYS_SEED = 1000, 2000  # added to the owner's; the verb's largest seed leaves room for them
NAMES = {"marked": "Her marked model", "clean": "Her model before the embedding"}
NAMES |= {"independent": "Carol's model", "stolen": "Mallory's copy"}


class Play:
    """One performance in a directory.

    Args:
        shell: runs the commands.
        seed: of the owner's training; the others' follow from it.
        kill: number of a node that is killed while it should verify the first claim, or None.
    """

    def __init__(self, shell: Shell, *, seed: int, kill: int | None = None) -> None:
        self.shell, self.seed, self.kill = shell, seed, kill
        self.facts: dict[str, Any] = {"seed": seed, "killed": kill}
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._servers: list[subprocess.Popen[bytes]] = []

    def perform(self) -> dict[str, Any]:
        """Play all acts; return what was found. Whatever was started is stopped."""
        try:
            self.start_ledger()
            self.mark_model()
            self.publish()
            self.steal()
            self.claim()
            self.ask()
            self.check()
        finally:
            stop([*self._servers, *self._nodes])
        self.facts["seconds"] = self.shell.seconds
        return self.facts

    def start_ledger(self) -> None:
        """Act 1: three verifier nodes, each a process with its own keys, ledger and verifier."""
        self.shell.heading(f"1/8  A ledger of {NODES} verifier nodes")
        here = ["--nodes", str(NODES), "--private-addresses"]  # act 6 has its endpoints on this machine
        self.shell.run(["cluster", "init", "ledger", *here, "--origin", ORIGIN])
        for number in range(1, NODES + 1):
            log = self.shell.directory / f"node-{number}.log"
            self._nodes.append(self.shell.start(["node", "run", f"ledger/node-{number}"], log=log))
        self._wait_until_ready()
        self.shell.run(["node", "status"])

    def mark_model(self) -> None:
        """Act 2: Alice trains a ResNet-18 on handwritten digits and embeds her watermark."""
        self.shell.heading("2/8  Alice trains a model and embeds her watermark; Carol trains one of her own")
        self.shell.run(["keygen", "--out", "alice.pem"])
        self._embed("alice", seed=self.seed, options=["--keep-clean"])
        carols_seed = str(self.seed + CAROLS_SEED)
        self.shell.run(
            ["train", "--arch", "resnet18", "--data", "digits", "--seed", carols_seed, "--out", "carol.safetensors"]
        )
        self._measure("marked", "alice/model.safetensors")
        self._measure("clean", "alice/clean.safetensors")
        self.shell.remark(
            "So it does: the embedding moves her model little, and the head reads both. The mark tells her models from "
            "those of others; which of her own was stolen it does not tell."
        )
        self._measure("independent", "carol.safetensors")

    def publish(self) -> None:
        """Act 3: Alice publishes her commitments, then may release the model."""
        self.shell.heading("3/8  Alice publishes before she releases")
        self.shell.run(["publish", "alice", "--signing-key", "alice.pem"])

    def steal(self) -> None:
        """Act 4: Mallory fine-tunes the stolen model on a tenth of the data and marks it as his own."""
        self.shell.heading("4/8  Mallory steals the model, fine-tunes it, embeds and publishes a watermark of his own")
        self.shell.run(["keygen", "--out", "mallory.pem"])
        stolen = ["--weights", "alice/model.safetensors", "--fraction", THIEFS_SHARE]
        self._embed("mallory", seed=self.seed + MALLORYS_SEED, options=stolen)
        self._measure("stolen", "mallory/model.safetensors")
        self.shell.run(["publish", "mallory", "--signing-key", "mallory.pem"])

    def claim(self) -> None:
        """Act 5: four claims; only the owner's on the stolen model stands."""
        self.shell.heading("5/8  Four claims")
        stolen = "mallory/model.safetensors"
        self.shell.remark("Alice claims the model that Mallory distributes.")
        won = self._claim("alice on the stolen model", stolen, by="alice", kill=self.kill)
        expect_verdict(won, "VERIFIED", superseded_by=None)
        self.shell.remark("Mallory claims the same file with his own watermark.")
        lost = self._claim("mallory on the stolen model", stolen, by="mallory", expect=1)
        expect_verdict(lost, "VERIFIED", superseded_by=won["publication"])
        self.shell.remark(f"His mark is in it too, {counted(lost)}; but Alice published before him.")
        self.shell.remark("Alice claims Carol's model, which Carol trained herself.")
        other = self._claim("alice on an independent model", "carol.safetensors", by="alice", expect=1)
        expect_verdict(other, "REFUTED", superseded_by=None)
        self.shell.remark(
            "Eve copies Alice's evidence, which the claim made public, and draws a random key of her own."
        )
        self._forge_bundle("eve", copied_from="alice")
        self.shell.run(["publish", "eve", "--signing-key", "eve.pem"])
        forged = self._claim("eve with a random key", stolen, by="eve", expect=1)
        expect_verdict(forged, "REFUTED", superseded_by=None)

    def ask(self) -> None:
        """Act 6: two models that can only be asked; triggers tell which of them is hers as she published it."""
        self.shell.heading("6/8  Behind a URL: nobody hands out the file, so the nodes ask")
        self.shell.remark(
            "Alice's customers run her model behind a URL. She makes triggers of her finished model, which stays as it "
            "is; any change of it moves some of their answers."
        )
        what = ["--scheme", "fragile", "--quick", "--arch", "resnet18", "--data", "digits", "--seed", str(self.seed)]
        finished = ["--weights", "alice/model.safetensors", "--epochs", "0"]
        self.shell.run(["embed", "--signing-key", "alice.pem", "--out", "sealed", *what, *finished])
        self.shell.run(["publish", "sealed", "--signing-key", "alice.pem"])
        self.shell.remark("One of them serves her model.")
        intact = self._claim_endpoint("alice on an endpoint with her model", "alice/model.safetensors")
        expect_verdict(intact, "INTACT", superseded_by=None)
        self.shell.remark("Another one serves what Mallory has made of it.")
        changed = self._claim_endpoint("alice on an endpoint with the copy", "mallory/model.safetensors", expect=1)
        expect_verdict(changed, "TAMPERED", superseded_by=None)
        self.shell.remark(f"{counted(changed)} are answered as she published them; on her own model all of them are.")

    def check(self) -> None:
        """Act 7: everything is checked again by somebody who trusts no single node; two flipped bytes are caught."""
        self.shell.heading("7/8  Anyone checks: the certificate offline, the whole ledger, and two forgeries")
        self.shell.run(["verify", "alice/certificate.json"])
        self.shell.run(["audit", "--mirror", "mirror"])
        self.shell.remark("One byte of the certificate is flipped.")
        flip_byte(self.shell.directory / "alice/certificate.json", copy=self.shell.directory / "forged.json")
        self.shell.run(["verify", "forged.json"], expect=1)
        self.shell.remark("One byte of the mirrored ledger is flipped.")
        flip_byte(largest_file(self.shell.directory / "mirror/tile"))
        self.shell.run(["audit", "--mirror", "mirror", "--offline"], expect=5)

    def _embed(self, owner: str, *, seed: int, options: list[str]) -> None:
        owned = ["--signing-key", f"{owner}.pem", "--out", owner]
        what = ["--scheme", "mtlsign", "--arch", "resnet18", "--data", "digits", "--seed", str(seed)]
        self.shell.run(["embed", *owned, *what, *options])
        self.facts.setdefault("embeddings", {})[owner] = self.shell.read_json(f"{owner}/report.json")

    def _measure(self, name: str, model: str) -> None:
        found = self.shell.run_json(["measure", model, "--evidence", "alice"])
        self.facts.setdefault("measured", {})[name] = found
        self.shell.remark(f"{NAMES[name]} {described(found)}.")

    def _claim(self, name: str, model: str, *, by: str, expect: int = 0, kill: int | None = None) -> dict[str, Any]:
        if kill is not None:
            self._kill(kill)
        return self._claimed(name, [model, "--evidence", by, "--signing-key", f"{by}.pem"], expect=expect)

    def _claim_endpoint(self, name: str, model: str, *, expect: int = 0) -> dict[str, Any]:
        """Serve a model while Alice claims its endpoint."""
        url = self._serve(model)
        arguments = [url, "--endpoint", "--evidence", "sealed", "--signing-key", "alice.pem"]
        state = self._claimed(name, arguments, expect=expect)
        stop([self._servers.pop()])
        return state

    def _serve(self, model: str) -> str:
        """Start the reference server; return the URL of its model."""
        log = self.shell.directory / f"server-{Path(model).parent}.log"
        serving = ["serve-model", model, "--evidence", "sealed", "--name", SERVED, "--port", "0"]
        server = self.shell.start(serving, log=log)
        self._servers.append(server)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and server.poll() is None:
            if url := served_url(log.read_text()):
                self.shell.output(f"serving {url}")
                return url
            time.sleep(0.1)
        raise DemoError(f"`wmreg serve-model` does not serve: {log.read_text()[-1000:]}")

    def _claimed(self, name: str, arguments: list[str], *, expect: int) -> dict[str, Any]:
        """Claim, and return the claim's state as `wmreg status` tells it afterwards."""
        known = self._claims()
        self.shell.run(["claim", *arguments], expect=expect)
        made = [claim for claim in self._claims() if claim not in known]
        if len(made) != 1:
            raise DemoError(f"{name}: the ledger has {len(made)} new claims, not one")
        state = self.shell.ask(["status", made[0]], expect=(expect,))
        self.facts.setdefault("claims", {})[name] = state
        return state

    def _claims(self) -> list[str]:
        page = self.shell.ask(["log", "--limit", "100"])
        entries = cast("list[dict[str, Any]]", page["entries"])
        return [entry["message_hash"] for entry in entries if entry["kind"] == "claim"]

    def _kill(self, number: int) -> None:
        self._nodes[number - 1].send_signal(signal.SIGKILL)
        self._nodes[number - 1].wait()
        self.shell.remark(f"node-{number} is killed (SIGKILL) before it can verify anything.")

    def _forge_bundle(self, name: str, *, copied_from: str) -> None:
        self.shell.run(["keygen", "--out", f"{name}.pem"])
        source, target = self.shell.directory / copied_from, self.shell.directory / name
        target.mkdir()
        for part in ("model.safetensors", "evidence.safetensors", "report.json"):
            shutil.copyfile(source / part, target / part)
        private_key = load_signing_key(self.shell.directory / f"{name}.pem")
        save_watermark_key(target / "watermark_key.json", create_watermark_key(private_key, origin=ORIGIN))

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if any(node.poll() is not None for node in self._nodes):
                raise DemoError("a node ended while it was starting; its log is in the report")
            if is_ready(self.shell.ask(["node", "status"], expect=(DONE, UNAVAILABLE))):
                return
            time.sleep(0.2)
        raise DemoError(f"the nodes were not ready after {START_TIMEOUT_S} s; their logs are in the report")


_REASONS = {"VERIFIED": "matched", "REFUTED": "below_threshold", "INTACT": "matched", "TAMPERED": "changed"}


def expect_verdict(state: dict[str, Any], outcome: str, *, superseded_by: str | None) -> None:
    """Check that a claim ended as the story tells.

    Args:
        state: what `wmreg status` says of it.
        outcome: what it must say.
        superseded_by: the publication that must prevail, hexadecimal; None when the claim's own must.

    Raises:
        DemoError: it ended otherwise, or for a reason that has nothing to do with the mark.
    """
    reason = _REASONS[outcome]
    found = state.get("outcome"), state.get("reason"), (state.get("superseding") or {}).get("publication")
    if found != (outcome, reason, superseded_by):
        raise DemoError(
            f"the claim {state.get('claim')} ended with {found}, not with {(outcome, reason, superseded_by)}"
        )


def described(found: dict[str, Any]) -> str:
    """What a count says: the mark is there, or chance is, or neither for sure."""
    thresholds, permille = Thresholds(), 1000 * found["matched"] / found["total"]
    count = f"answers {found['matched']} of {found['total']} triggers"
    if permille >= thresholds.gamma_permille:
        return f"{count}: it carries the mark"
    return (
        f"{count}: {'no more than chance' if permille < thresholds.refute_permille else 'more than chance, not enough'}"
    )


def counted(state: dict[str, Any]) -> str:
    """The numbers of the first vote that has any.

    Raises:
        DemoError: no node measured anything.
    """
    for vote in state.get("votes", []):
        if vote.get("total"):
            return f"{vote['matched']} of {vote['total']} triggers"
    raise DemoError(f"no vote on the claim {state.get('claim')} has numbers")


def served_url(log: str) -> str | None:
    """The URL that `wmreg serve-model` has told; None as long as it has not."""
    told = [line.removeprefix("serving ") for line in log.splitlines(keepends=True) if line.startswith("serving ")]
    return told[0].rstrip("\n") if told and told[0].endswith("\n") else None


def is_ready(status: dict[str, Any]) -> bool:
    """Whether all nodes answer and one of them leads."""
    nodes = status.get("nodes", [])
    leaders = [node for node in nodes if node.get("raft", {}).get("state") == "leader"]
    return len(nodes) == NODES and all(node.get("reachable") for node in nodes) and len(leaders) == 1


def flip_byte(path: Path, *, copy: Path | None = None) -> None:
    """Flip one bit in the middle of a file, or of a copy of it."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy or path).write_bytes(raw)


def largest_file(directory: Path) -> Path:
    """The largest file below a directory: in a mirror, the entries."""
    return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
