"""`wmreg verify`: a receipt or a certificate against a trust policy, without any network."""

from pathlib import Path

import click

from client import options
from client.output import Report


@click.command("verify")
@click.argument("file", type=options.FILE)
@options.policy
@options.as_json
def command(file: Path, policy_path: Path) -> Report:
    """Check FILE, a receipt or a certificate, offline.

    Tells what it proves: who, what, when, by the word of how many nodes, with which numbers, and what it does not.
    """
    from client import stories
    from client.errors import InvalidError
    from client.files import read_limited
    from registry.certificate import CERTIFICATE_BYTES_MAX, verify_certificate
    from registry.receipt import HEADER, Receipt, verify_receipt

    trust = options.load_policy(policy_path)
    content = read_limited(file, CERTIFICATE_BYTES_MAX)
    if content.lstrip()[:1] == b"{":
        with options.naming(file):
            story = verify_certificate(content, trust)
        return Report(document=stories.certificate_document(story), text=stories.certificate_text(story))
    if not content.startswith(HEADER.encode()[:16]):
        raise InvalidError(f"{file}: neither a receipt nor a certificate", code="malformed")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InvalidError(f"{file}: the receipt is damaged: not text", code="malformed") from error
    with options.naming(file):
        verified = verify_receipt(Receipt.parse(text), trust)
    return Report(document=stories.receipt_document(verified), text=stories.receipt_text(verified))
