"""node.toml is read strictly: every key, none besides, each in its range, and an error names the key."""

import re
from pathlib import Path

import pytest

from node.config import check_directories, load_config
from node.errors import ConfigError
from node.init import init_cluster


@pytest.fixture
def path(tmp_path: Path) -> Path:
    init_cluster(tmp_path / "ledger", nodes=1, origin="config.test")
    return tmp_path / "ledger" / "node-1" / "node.toml"


def test_what_init_wrote_is_read_with_absolute_paths(path: Path):
    config = load_config(path)
    assert config.name == "node-1"
    assert config.keys.signing == path.parent / "keys" / "signing.pem"
    assert config.state_directory == path.parent / "state"
    assert config.verifier.device == "auto"
    assert config.raft.profile == "lan"
    assert config.api.explorer is True


def test_a_relative_path_to_the_file_gives_absolute_paths(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(path.parent)
    assert load_config(Path("node.toml")).genesis == path.parent / "genesis"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('name = "node-1"\n', "", "name"),
        ('name = "node-1"\n', "name = 1\n", "name"),
        ('name = "node-1"\n', 'name = "node-1"\nnmae = "node-1"\n', "nmae"),
        ("submit_timeout_s = 15", "submit_timeout_s = 0", "submit_timeout_s"),
        ("submit_timeout_s = 15", "submit_timeout_s = true", "submit_timeout_s"),
        ("submit_timeout_s = 15", "submit_timeout_s = 15.0", "submit_timeout_s"),
        ("submit_timeout_s = 15", "", "submit_timeout_s"),
        ("allow_private_addresses = false", 'allow_private_addresses = "no"', "allow_private_addresses"),
        ('file_directory = ""', 'file_directory = "models"', "file_directory"),
        ('file_directory = ""', "", "file_directory"),
        ('controls_directory = ""', 'controls_directory = "public"', "controls_directory: expected an absolute path"),
        ('controls_directory = ""', "", "controls_directory"),
        ("threads = 1", "threads = 0", "threads"),
        ("[raft]", "[rafts]", "raft"),
        ('profile = "lan"', 'profile = "moon"', "profile: expected one of lan, wan"),
        ('profile = "lan"', "", "profile"),
        ("claims_per_hour = 120\nkey", "claims_per_hour = 1000001\nkey", "claims_per_hour"),
        ("key_claims_per_hour = 120", "", "key_claims_per_hour"),
        ("reads_per_s = 500", "reads_per_s = -1", "reads_per_s"),
        ("explorer = true", "", "explorer"),
        ("explorer = true", "explorer = 1", "explorer: expected true or false"),
        ("address_connections_max = 128", "address_connections_max = -1", "address_connections_max"),
        ('signing = "keys/signing.pem"', 'signing_key = "keys/signing.pem"', "signing"),
        ("[api]", "[api", "TOML|Expected"),
        (
            'device = "auto"',
            'device = "tpu"',
            r"field device: expected auto, cpu, cuda or cuda:N, not 'tpu'",
        ),
        ('device = "auto"', 'device = "cuda:"', "device: expected auto"),
        ('device = "auto"', 'device = "cuda:one"', "device: expected auto"),
        ('device = "auto"', 'device = "AUTO"', "device: expected auto"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(path: Path, old: str, new: str, named: str):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=named):
        load_config(path)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:15"])
def test_the_verifiers_device_is_one_that_it_can_use(path: Path, device: str):
    path.write_text(path.read_text().replace('device = "auto"', f'device = "{device}"'))
    assert load_config(path).verifier.device == device


@pytest.mark.parametrize("key", ["[fetch] file_directory", "[verifier] controls_directory"])
def test_a_directory_that_is_not_there_is_an_error_that_names_its_key(path: Path, tmp_path: Path, key: str):
    named = tmp_path / "public"
    setting = key.partition(" ")[2]
    path.write_text(path.read_text().replace(f'{setting} = ""', f'{setting} = "{named}"'))
    with pytest.raises(ConfigError, match=rf"{re.escape(key)}: {re.escape(str(named))}: no such directory"):
        check_directories(load_config(path))
    named.mkdir()
    check_directories(load_config(path))


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_config(tmp_path / "absent.toml")
