"""Reading a trust policy, with errors for people; what a policy says is in `registry.trust`."""

from pathlib import Path

from client.errors import InputError
from client.files import explaining, read_text
from registry.errors import RegistryError
from registry.trust import POLICY_BYTES_MAX, TrustPolicy


def load_policy(path: Path) -> TrustPolicy:
    """Read a trust policy file.

    Raises:
        InputError: it is no trust policy, naming the line; or not a text file of a policy's size.
        OSError: it cannot be read.
    """
    return parse_policy(read_text(path, POLICY_BYTES_MAX), called=str(path))


def parse_policy(text: str, *, called: str) -> TrustPolicy:
    """Read a trust policy's text.

    Args:
        text: of the file.
        called: names it in the error.

    Raises:
        InputError: it is no trust policy, naming the line.
    """
    with explaining(text.encode()):
        try:
            return TrustPolicy.parse(text)
        except RegistryError as error:
            hint = "expected the trust policy of a ledger, such as the policy.txt that wmreg cluster init makes"
            raise InputError(f"{called}: {error}; {hint}", code=error.code) from error
