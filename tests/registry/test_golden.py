"""Files of past releases: what was proof once must stay proof (tests/vectors/golden, one folder for each format).

The folder of a new format is made once: `PYTHONPATH=.:tests python tests/registry/test_golden.py v2`.
"""

import json
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from fakes import LedgerMaker, policy

from registry import tiles
from registry.audit import replay
from registry.certificate import verify_certificate
from registry.checkpoint import Checkpoint
from registry.errors import RegistryError
from registry.note import Note
from registry.receipt import Receipt, verify_receipt
from registry.trust import TrustPolicy

GOLDEN = Path(__file__).parents[1] / "vectors" / "golden"
RELEASES = sorted(path for path in GOLDEN.iterdir() if path.is_dir())


def plain(value):
    """A story as JSON, to be compared with the one that was kept."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def trust_of(release):
    return TrustPolicy.parse((release / "policy.txt").read_text())


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_certificate_of_every_release_still_tells_its_story(release):
    story = verify_certificate((release / "certificate.json").read_bytes(), trust_of(release))
    kept = json.loads((release / "story.json").read_text())
    assert {name: value for name, value in plain(story).items() if name in kept} == kept


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_receipt_of_every_release_still_holds(release):
    verified = verify_receipt(Receipt.parse((release / "receipt.tlog-proof").read_text()), trust_of(release))
    assert verified.signed.message.KIND == "publish"


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_log_of_every_release_replays_to_its_checkpoint(release):
    checkpoint = Checkpoint.parse(Note.parse((release / "checkpoint").read_text()).text)
    state = replay(tiles.parse_entry_bundle((release / "entries").read_bytes()))
    assert (state.size, state.root_at(state.size)) == (checkpoint.size, checkpoint.root)


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_damaged_file_of_a_past_release_is_still_refused(release):
    raw = (release / "certificate.json").read_bytes()
    with pytest.raises(RegistryError):
        verify_certificate(raw.replace(b'"index": 1', b'"index": 2', 1), trust_of(release))


def write_golden(release):
    """Make the files of the present format, with every kind of message in the log."""
    maker = LedgerMaker()
    publication = maker.publish("alice")
    maker.change_policy(policy(1, 2, 3, 4), "node-1", "node-2", "node-4")
    maker.rotate("alice", "alice-2")
    others = maker.publish("carol")
    claim = maker.submit(maker.seal(maker.claim_message("alice", publication), "alice-2")).message_hash
    for node in (1, 2, 3):
        maker.vote(node, claim)
    maker.challenge("carol", claim, others)
    maker.withdraw("carol", others)
    release.mkdir(parents=True)
    certificate = maker.certificate(claim).encode()
    (release / "policy.txt").write_text(str(maker.trust))
    (release / "certificate.json").write_bytes(certificate)
    (release / "receipt.tlog-proof").write_text(str(maker.receipt(publication)))
    (release / "checkpoint").write_text(str(maker.note()))
    (release / "entries").write_bytes(tiles.entry_bundle(maker.entries))
    story = plain(verify_certificate(certificate, maker.trust))
    (release / "story.json").write_text(json.dumps(story, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    write_golden(GOLDEN / sys.argv[1])
