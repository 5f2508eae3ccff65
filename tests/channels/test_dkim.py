"""DKIM: what a stranger's verifier says of our mails, and what a wrong key is told."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dkim  # type: ignore[import-untyped]
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.programs import allim, an_empty_directory

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels import email
from allim.channels.dkim import DkimSettings, DkimSigner
from allim.channels.mail import Attachment, Mail, compose, parse_mailbox, parse_sender
from allim.channels.registry import make_http, make_services
from allim.testing.channels import a_message, send_one
from allim.testing.smtp import SmtpSink

SENDER, KIM = parse_sender("알림 <no-reply@hub.example>"), parse_mailbox("kim@example.com")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
URL = "https://hub.example/unsubscribe/abc"


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def environment(key: str, **more: str) -> Environment:
    names = {"DKIM_DOMAIN": "Hub.Example", "DKIM_SELECTOR": "s1", "DKIM_PRIVATE_KEY": key}
    return Environment({**names, **more})


def signer_of(key: str) -> DkimSigner:
    signer = environment(key).read(DkimSettings).signer()
    assert signer is not None
    return signer


def is_good(signer: DkimSigner, content: bytes) -> bool:
    name, record = signer.record()

    def look_up(asked: bytes, timeout: int = 5) -> bytes | None:
        return record.encode() if asked.decode().rstrip(".") == name else None

    return bool(dkim.verify(content, dnsfunc=look_up))


def a_mail(text: str = "카드 승인이 거절되었습니다", **payload: object) -> Mail:
    message = a_message(None, message=text, payload=payload)
    return compose(message, sender=SENDER, recipient=KIM, at=NOW, unsubscribe=URL)


def test_a_verifier_that_is_not_ours_finds_the_signature_good() -> None:
    signer = signer_of(pem(RSA))
    mail = a_mail(html="<p>hello</p>", reply_to="help@hub.example")
    content = mail.content(signer.sign(mail))

    assert is_good(signer, content)
    assert content.startswith(b"DKIM-Signature: v=1; a=")
    for forged in (
        content.replace(b"kim@example.com", b"lee@example.com"),
        content.replace(b"List-Unsubscribe=One-Click", b"List-Unsubscribe=Never"),
        content.replace(URL.encode(), b"https://evil.example/"),
        content + b"more\r\n",
        b"From: evil@example.com\r\n" + content,
        b"Subject: evil\r\n" + content,
    ):
        assert forged != content
        assert not is_good(signer, forged)


@settings(max_examples=40, deadline=None)
@given(text=st.text(), title=st.text(max_size=300), file=st.binary(max_size=300))
def test_whatever_a_mail_says_its_signature_is_good(text: str, title: str, file: bytes) -> None:
    signer = signer_of(pem(RSA))
    mail = compose(
        a_message(None, title=title, message=text),
        sender=SENDER,
        recipient=KIM,
        at=NOW,
        attachments=[Attachment("f.bin", "application/octet-stream", file)] if file else (),
    )
    assert is_good(signer, mail.content(signer.sign(mail)))


@pytest.mark.parametrize(
    "body",
    [b"", b"\r\n", b"\r\n\r\n", b"a", b"a \t \r\n\r\n\r\n", b" a\t\tb  c \r\n\r\nd\r\n", b" \r\n"],
)
def test_bodies_with_blanks_at_their_ends_verify(body: bytes) -> None:
    signer = signer_of(pem(RSA))
    mail = Mail([*a_mail().headers[:5]], body)
    assert is_good(signer, mail.content(signer.sign(mail)))


def test_the_key_may_stand_in_a_file_or_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "dkim.pem"
    file.write_text(pem(RSA))
    assert signer_of(str(file)).record() == signer_of(pem(RSA)).record()
    assert signer_of(pem(RSA).replace("\n", "\\n")).record() == signer_of(pem(RSA)).record()
    assert Environment({}).read(DkimSettings).signer() is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"DKIM_PRIVATE_KEY": "/no/such/file"}, "neither PEM nor a file"),
        ({"DKIM_PRIVATE_KEY": "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n"}, "not a private key"),
        ({"DKIM_PRIVATE_KEY": pem(ec.generate_private_key(ec.SECP256R1()))}, "RSA key"),
        ({"DKIM_PRIVATE_KEY": ""}, "belong together"),
        ({"DKIM_SELECTOR": ""}, "belong together"),
        ({"DKIM_SELECTOR": "s1;evil"}, "DKIM_SELECTOR"),
        ({"DKIM_DOMAIN": "hub example"}, "DKIM_DOMAIN"),
    ],
)
def test_a_wrong_key_is_told_at_the_start_and_never_shown(
    settings: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        environment(pem(RSA), **settings).read(DkimSettings)
    assert "c2VjcmV0" not in str(caught.value)
    assert "BEGIN" not in str(caught.value)


async def test_the_signature_is_good_when_the_mail_has_arrived() -> None:
    unsubscribing = {
        "ALLIM_PUBLIC_URL": "https://hub.example",
        "EMAIL_UNSUBSCRIBE_SECRET": "0123456789abcdef",
    }
    text = ".\r\n..dots\n\ttabs  and blanks \n긴 줄 " + "가" * 2000 + "\n\n\n"
    async with SmtpSink() as sink:
        settings = environment(pem(RSA), SMTP_URL=sink.url, SMTP_HELO_NAME="h", **unsubscribing)
        channel = email.make(settings, make_services(make_http(settings)))
        payload = {"html": "<p>.\n.</p>", "unsubscribe": "news", "reply_to": "a@hub.example"}
        await send_one(channel, a_message("kim@example.com", message=text, payload=payload))
        await send_one(channel, a_message("kim@example.com", message=text))
        await channel.close()
    assert channel.configured().detail.endswith("signed for hub.example")
    for mail in sink.mails:
        assert is_good(signer_of(pem(RSA)), mail.content)
    signed = str(sink.mails[0].message["DKIM-Signature"]).replace("\r\n", "").replace(" ", "")
    names = signed.partition(";h=")[2].partition(";")[0].split(":")
    assert {"List-Unsubscribe", "List-Unsubscribe-Post", "To", "Date", "Message-ID"} <= set(names)
    assert names.count("From") == 2, "signed once more than it occurs"


async def test_the_doctor_shows_the_record_and_whose_mail_it_is() -> None:
    with an_empty_directory() as place:
        (place / "dkim.pem").write_text(pem(RSA))
        settings = {"DKIM_DOMAIN": "hub.example", "DKIM_SELECTOR": "s1"}
        good = await allim(
            "doctor",
            cwd=place,
            DKIM_PRIVATE_KEY="dkim.pem",
            SMTP_FROM="Hub <no-reply@mail.hub.example>",
            **settings,
        )
        wrong = await allim("doctor", cwd=place, DKIM_PRIVATE_KEY="dkim.pem", **settings)
        assert " ".join(good.out.split()).count("s1._domainkey.hub.example TXT") == 1
        assert signer_of(pem(RSA)).record()[1][20:60] in "".join(good.out.split())
        assert "mails come from localhost, but are signed for hub.example" in wrong.out
