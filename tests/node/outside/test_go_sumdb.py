"""A node's log read by Go's checksum database tools, which share no code with us (Debian: golang-golang-x-mod-dev)."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from nodeset import NodeSet, publication

from registry.envelope import message_hash

GO, PACKAGES = shutil.which("go"), Path("/usr/share/gocode")
ENTRIES = 300  # a full tile and a partial one

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        GO is None or not (PACKAGES / "src/golang.org/x/mod/sumdb").is_dir(),
        reason="needs Go and golang.org/x/mod (Debian: golang-go, golang-golang-x-mod-dev)",
    ),
]


@pytest.fixture(scope="module")
def checklog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checklog")
    program = directory / "checklog"
    source = Path(__file__).with_name("checklog.go")
    surroundings = {**os.environ, "GO111MODULE": "off", "GOPATH": str(PACKAGES), "GOCACHE": str(directory / "cache")}
    subprocess.run([GO, "build", "-o", program, source], check=True, env=surroundings)
    return program


async def run(program: Path, *words: str | Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        program, *map(str, words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_go_reads_the_log_and_accepts_a_receipt(checklog: Path, tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        ledger, gatherer = nodes.nodes[0].ledger, nodes.nodes[0].services.gatherer
        digests = []
        for number in range(ENTRIES - 1):
            envelope = publication(number=number)
            await ledger.submit(envelope, timeout_s=30)
            digests.append(message_hash(envelope))
        for node in nodes.nodes:
            assert await node.ledger.signed.wait_for(ENTRIES, 30)
        index = ledger.store.find(digests[40]).index
        receipt, text = tmp_path / "receipt", await gatherer.receipt(index, timeout_s=30)
        receipt.write_text(text)
        policy, url = tmp_path / "ledger" / "policy.txt", nodes.nodes[0].url

        code, out, err = await run(checklog, url, policy, receipt)
        assert code == 0, err
        assert json.loads(out)["size"] == ENTRIES
        assert json.loads(out)["index"] == index
        assert len(set(json.loads(out)["signers"])) >= 3  # the log's own name and two cosigners

        receipt.write_text(text.replace(f"index {index}\n", f"index {index + 1}\n"))
        code, _, err = await run(checklog, url, policy, receipt)
        assert (code, "receipt:" in err) == (1, True)
