"""A node's small files: settings, keys, genesis, and whose they are."""

import ssl

from node.config import Config
from node.errors import ConfigError
from node.identity import Identity, check_directory, check_identity, load_identity, public_bytes
from node.upkeep.findings import Findings
from registry.note import KeyType, VerifierKey
from registry.policy import Policy
from registry.spelling import is_key_name

KEYS, GENESIS, STATE = "keys", "genesis", "state"
_MEND_KEYS = "put back the key files of this node, owned by the user that runs it, mode 600"
_MEND_GENESIS = "copy the genesis from another node's directory; all have the same"


def check_files(config: Config, findings: Findings) -> tuple[Identity | None, bytes | None]:
    """Check keys, genesis and modes; return the keys and the genesis' bytes as far as they can be read."""
    identity = genesis = None
    try:
        identity = load_identity(config.keys)
        _check_pair(config)
    except ConfigError as error:
        findings.add(KEYS, str(error), _MEND_KEYS)
    try:
        genesis = config.genesis.read_bytes()
    except OSError as error:
        findings.add(GENESIS, f"{config.genesis}: {error.strerror}", _MEND_GENESIS)
    try:
        check_directory(config.state_directory)
    except ConfigError as error:
        findings.add(STATE, str(error), "let it be the node's own directory, mode 700")
    return identity, genesis


def verifier_keys(identity: Identity | None, *, origin: str, name: str) -> set[VerifierKey]:
    """The keys that check what this node signs now."""
    if identity is None or not is_key_name(origin):
        return set()
    note = VerifierKey(name=origin, type=KeyType.ED25519, public_key=public_bytes(identity.note))
    cosigner = VerifierKey(
        name=f"{origin}/{name}", type=KeyType.COSIGNATURE, public_key=public_bytes(identity.cosigner)
    )
    return {note, cosigner}


def check_membership(name: str, identity: Identity, policy: Policy, findings: Findings) -> None:
    """Check that the keys are those that the policy in force lists for the node."""
    member = next((member for member in policy.members if member.name == name), None)
    if member is None:
        findings.remarks.append(f"{name} is not a member of the ledger as far as it is stored here")
        return
    try:
        check_identity(identity, member)
    except ConfigError as error:
        findings.add(KEYS, str(error), _MEND_KEYS)


def _check_pair(config: Config) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.keys.tls_certificate, config.keys.tls_private_key)
    except OSError as error:  # ssl.SSLError among them
        raise ConfigError(f"{config.keys.tls_private_key}: not the key of {config.keys.tls_certificate}") from error
