"""Mails that pose as bounces: anybody can write one, so none may keep the hub busy or fail it."""

from __future__ import annotations

import pytest

from allim.messaging.email_reports import EVENTS_LIMIT, read_mail

OURS = b"<allim.7.0190163d-8694-739b-aea5-966c26f8ad91@hub.example>"
BLOCK = b"Action: failed\nStatus: 5.1.1\n\n"


def bounce(original: bytes, kind: bytes = b"text/rfc822-headers", blocks: int = 1) -> bytes:
    return (
        b"Content-Type: multipart/report; boundary=b\n\n--b\n"
        b"Content-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\n"
        + BLOCK * blocks
        + b"--b\nContent-Type: "
        + kind
        + b"\n\n"
        + original
        + b"\n\n--b--\n"
    )


@pytest.mark.parametrize(
    "charset", [b"unicode_escape", b"idna", b"zlib", b"utf-7", b"utf-16", b"\xff", b"x-unknown"]
)
def test_headers_in_an_odd_charset_fail_nothing(charset: bytes) -> None:
    headers = b"Subject: \xff \\ud800\nMessage-ID: " + OURS
    assert len(read_mail(bounce(headers, b"text/rfc822-headers; charset=" + charset))) <= 1


@pytest.mark.parametrize(
    "opening",
    [
        b"Content-Type: message/rfc822\n\n",
        b"Content-Type:\r multipart/mixed; boundary=%d\r\r--%d\r",
        b"Content-Type: multipart/digest; boundary=%d\n\n--%d\n\n",
    ],
)
def test_parts_within_parts_are_not_followed_for_ever(opening: bytes) -> None:
    holders = b"".join(opening % (at, at) if b"%d" in opening else opening for at in range(2_000))
    assert read_mail(holders + b"x\n" * 90_000) == ()


def test_no_more_reports_than_a_request_may_have() -> None:
    assert len(read_mail(bounce(b"Message-ID: " + OURS, blocks=3_000))) == EVENTS_LIMIT
    assert read_mail(bounce(b"Message-ID: " + OURS, blocks=60_000)) == ()
