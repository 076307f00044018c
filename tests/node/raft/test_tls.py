"""Promised: an identity that the peers would refuse, or a list of peers that makes no sense, is refused at once."""

import dataclasses
import ssl

import pytest
from raft_cluster import NOW, make_peers

from node.raft import make_certificate
from node.raft.tls import TlsIdentity


@pytest.fixture
def peers(tmp_path):
    return make_peers(tmp_path, ["node-1", "node-2"])


def load(directory, peers, *, name: str = "node-1", files: str = "node-1") -> TlsIdentity:
    return TlsIdentity(
        name=name,
        peers=peers,
        certificate_path=directory / f"{files}.crt",
        private_key_path=directory / f"{files}.key",
    )


def test_a_sound_description_is_accepted(tmp_path, peers):
    assert load(tmp_path, peers).server.num_tickets == 0


def test_both_certificates_of_a_rotation_are_accepted(tmp_path, peers):
    new = make_certificate("node-1", now=NOW)
    (tmp_path / "new.crt").write_text(new.certificate_pem)
    (tmp_path / "new.key").write_text(new.private_key_pem)
    both = dataclasses.replace(
        peers[0],
        certificate_pins=(*peers[0].certificate_pins, new.pin),
        certificate_pem=peers[0].certificate_pem + new.certificate_pem,
    )
    for files in ("node-1", "new"):
        contexts = load(tmp_path, [both, peers[1]], files=files)
        assert (contexts.server.verify_mode, contexts.client.verify_mode) == (ssl.CERT_REQUIRED, ssl.CERT_REQUIRED)


def test_a_certificate_of_another_node_is_refused(tmp_path, peers):
    with pytest.raises(ValueError, match="not a certificate that the policy lists for node-1"):
        load(tmp_path, peers, files="node-2")


def test_a_key_that_does_not_fit_is_refused(tmp_path, peers):
    (tmp_path / "node-1.key").write_text((tmp_path / "node-2.key").read_text())
    with pytest.raises(OSError, match="MISMATCH"):
        load(tmp_path, peers)


def test_a_pin_without_its_certificate_is_refused(tmp_path, peers):
    wrong = dataclasses.replace(peers[1], certificate_pins=("00" * 32,))
    with pytest.raises(ValueError, match="pins of node-2"):
        load(tmp_path, [peers[0], wrong])


def test_one_certificate_for_two_nodes_is_refused(tmp_path, peers):
    with pytest.raises(ValueError, match="have the same certificate"):
        load(tmp_path, [*peers, dataclasses.replace(peers[1], name="node-3")])
