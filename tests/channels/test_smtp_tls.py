"""SMTP with a whole server (aiosmtpd): STARTTLS, TLS from the first byte, login."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from structlog.testing import capture_logs

from allim.base.settings import Environment
from allim.channels import email
from allim.channels.registry import make_http, make_services
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.testing.channels import a_message, send_one

# aiosmtpd does not see that a connection which began in TLS has it.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's context with a certificate that nobody trusts."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    _make_certificate(key, certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _make_certificate(key: Path, certificate: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)


class Taken:
    """An aiosmtpd handler that keeps what it takes."""

    def __init__(self) -> None:
        self.recipients: list[str] = []
        self.encrypted: list[bool] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.recipients.extend(envelope.rcpt_tos)
        self.encrypted.append(session.ssl is not None)
        return "250 2.0.0 queued"


def _authenticate(
    server: SMTP, session: Session, envelope: Envelope, mechanism: str, credentials: Any
) -> AuthResult:
    known = (credentials.login, credentials.password) == (b"mailer", b"s3cret")
    return AuthResult(success=known, handled=False)


@asynccontextmanager
async def _server(
    context: ssl.SSLContext, *, implicit: bool = False
) -> AsyncIterator[tuple[int, Taken]]:
    taken = Taken()

    def protocol() -> SMTP:
        return SMTP(
            taken,
            hostname="mx.test",
            authenticator=_authenticate,
            auth_required=True,
            auth_require_tls=not implicit,
            tls_context=None if implicit else context,
            require_starttls=not implicit,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=context if implicit else None)
    async with server:
        yield server.sockets[0].getsockname()[1], taken


async def _send(url: str) -> Outcome:
    environment = Environment(
        {"SMTP_URL": url, "SMTP_HELO_NAME": "here.test", "EMAIL_TIMEOUT_SECONDS": "20"}
    )
    channel = email.make(environment, make_services(make_http(environment)))
    outcome = await send_one(channel, a_message("kim@example.com"))
    await channel.close()
    return outcome


async def test_starttls_and_login(certificate: ssl.SSLContext) -> None:
    async with _server(certificate) as (port, taken):
        outcome = await _send(f"smtp://mailer:s3cret@127.0.0.1:{port}?starttls=required&verify=no")
    assert outcome.kind is OutcomeKind.DELIVERED
    assert (taken.recipients, taken.encrypted) == (["kim@example.com"], [True])


async def test_tls_from_the_first_byte(certificate: ssl.SSLContext) -> None:
    async with _server(certificate, implicit=True) as (port, taken):
        outcome = await _send(f"smtps://mailer:s3cret@127.0.0.1:{port}?verify=no")
    assert outcome.kind is OutcomeKind.DELIVERED
    assert taken.recipients == ["kim@example.com"]


@pytest.mark.parametrize("implicit", [True, False])
async def test_a_certificate_that_nobody_trusts_is_our_fault(
    certificate: ssl.SSLContext, implicit: bool
) -> None:
    scheme = "smtps" if implicit else "smtp"
    with capture_logs() as logs:
        async with _server(certificate, implicit=implicit) as (port, taken):
            outcome = await _send(f"{scheme}://mailer:s3cret@127.0.0.1:{port}")
    assert (outcome.kind, outcome.code) == (OutcomeKind.FAULT, "smtp_tls_failed")
    assert taken.recipients == []
    assert "s3cret" not in str(logs) + str(outcome)


async def test_a_wrong_password_is_our_fault(certificate: ssl.SSLContext) -> None:
    with capture_logs() as logs:
        async with _server(certificate) as (port, _):
            outcome = await _send(f"smtp://mailer:wr0ng@127.0.0.1:{port}?verify=no")
    assert (outcome.kind, outcome.code) == (OutcomeKind.FAULT, "smtp_auth_failed")
    assert "wr0ng" not in str(logs) + str(outcome)


async def test_a_password_is_never_sent_in_the_clear(certificate: ssl.SSLContext) -> None:
    async with _server(certificate) as (port, _):
        outcome = await _send(f"smtp://mailer:s3cret@127.0.0.1:{port}?starttls=never")
    assert outcome.kind is OutcomeKind.FAULT
