"""The options that name hooks: --webhook and --email, with what belongs to each."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from client import options
from client.errors import InputError

if TYPE_CHECKING:
    from client.watch.delivery import Hook

HOOKS_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class HookOptions:
    """What was said of hooks; fields as the options are called."""

    webhook: tuple[str, ...]
    webhook_secret: Path | None
    email: tuple[str, ...]
    email_from: str | None
    smtp: str | None
    smtp_password: Path | None
    hook_ca_file: Path | None

    def hooks(self) -> "list[Hook]":
        """The hooks, all of whose settings and secrets were read.

        Raises:
            InputError: an option is missing, or says what cannot be.
            InvalidError: a secret's file holds none.
            OSError: it cannot be read.
        """
        if len(set(self.webhook)) + len(set(self.email)) > HOOKS_MAX:
            raise InputError(f"--webhook, --email: at most {HOOKS_MAX} hooks")
        return [*self._webhooks(), *self._mails()]

    def _webhooks(self) -> "list[Hook]":
        from client.watch.webhook import Webhook, check_url, load_secret

        urls = [check_url(url) for url in dict.fromkeys(self.webhook)]
        if self.webhook_secret is None or not urls:
            if urls or self.webhook_secret is not None:
                raise InputError(
                    "--webhook and --webhook-secret: both or neither; without a signature, anybody is wmreg"
                )
            return []
        secret, tls = load_secret(self.webhook_secret), self._tls()
        return [Webhook(url, secret, True if tls is None else tls) for url in urls]

    def _mails(self) -> "list[Hook]":
        from client.watch.mail import Mail, check_address, mail_server

        addresses = [check_address(address, option="--email") for address in dict.fromkeys(self.email)]
        if not addresses or self.smtp is None:
            if addresses or self.smtp is not None:
                raise InputError("--email and --smtp: both or neither; --smtp smtps://USER@HOST takes the e-mails")
            if self.smtp_password is not None or self.email_from is not None:
                raise InputError("--smtp-password, --email-from: they go with --email")
            return []
        server = mail_server(self.smtp, password_path=self.smtp_password, tls=self._tls())
        sender = self.email_from or server.user
        if sender is None or (self.email_from is None and "@" not in sender):
            raise InputError("--email-from: the address that e-mails come from is missing; the user of --smtp is none")
        sender = check_address(sender, option="--email-from")
        return [Mail(address, sender, server) for address in addresses]

    def _tls(self) -> ssl.SSLContext | None:
        if self.hook_ca_file is None:
            return None
        try:
            return ssl.create_default_context(cafile=self.hook_ca_file)
        except (OSError, ValueError) as error:
            message = f"{self.hook_ca_file}: not a PEM file of certificate authorities: {error}"
            raise InputError(message) from error


def hook_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of hooks; the command takes them as one parameter, hooks."""

    @wraps(function)
    def with_hooks(**given: Any) -> object:  # noqa: ANN401 (whatever options the verb has)
        named = {field.name: given.pop(field.name) for field in fields(HookOptions)}
        return function(hooks=HookOptions(**named), **given)

    decorators = (
        click.option(
            "--webhook", metavar="URL", multiple=True, help="POST every event there, signed; may be repeated."
        ),
        click.option("--webhook-secret", type=options.FILE, help="What webhooks are signed with: whsec_ and base64."),
        click.option("--email", metavar="ADDRESS", multiple=True, help="Send every event there; may be repeated."),
        click.option("--email-from", metavar="ADDRESS", help="Whom e-mails come from.  [default: the user of --smtp]"),
        click.option("--smtp", metavar="URL", help="Who takes e-mails: smtps://USER@HOST, or smtp:// for STARTTLS."),
        click.option("--smtp-password", type=options.FILE, help="The password of --smtp's user, in one line."),
        click.option(
            "--hook-ca-file",
            type=options.FILE,
            help="Certificate authorities (PEM) of webhooks and SMTP servers.  [default: the system's]",
        ),
    )
    decorated: Callable[..., Any] = with_hooks
    for decorator in reversed(decorators):
        decorated = decorator(decorated)
    return decorated
