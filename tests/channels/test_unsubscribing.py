"""Links for unsubscribing: what they say, that they cannot be forged, and where they stand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels import email
from allim.channels.channel import Draft
from allim.channels.registry import make_http, make_services
from allim.channels.unsubscribing import (
    TOKEN_LIMIT,
    Subscription,
    UnsubscribeLinks,
    UnsubscribeSettings,
    list_name,
    list_of,
)
from allim.testing.channels import a_message, send_one
from allim.testing.smtp import Mail, SmtpSink

SECRET = "0123456789abcdef"
LINKS = UnsubscribeLinks("https://hub.example", [SECRET.encode()])
KIM = Subscription("kim@example.com", 7, "newsletter")
SETTINGS = {"ALLIM_PUBLIC_URL": "https://hub.example/", "EMAIL_UNSUBSCRIBE_SECRET": SECRET}


@given(address=st.text(max_size=254), tenant=st.none() | st.integers(1, 2**63 - 1), name=st.text())
def test_a_token_says_what_was_signed(address: str, tenant: int | None, name: str) -> None:
    address = address.encode("utf-8", "replace").decode()[:150]
    subscription = Subscription(address, tenant, list_name(name))
    token = LINKS.token(subscription)
    assert LINKS.read(token) == subscription
    assert token.replace("-", "").replace("_", "").replace(".", "").isalnum()


@pytest.mark.parametrize("letter", ["나", '"', "\x01", "😀", "\ud800"])
def test_the_longest_link_fits_a_headers_line(letter: str) -> None:
    longest = Subscription("a" * 64 + "@" + "b" * 189, 2**63 - 1, list_name(letter * 100))
    url = UnsubscribeLinks("https://" + "h" * 192, [b"s" * 16]).url(longest)
    assert len(LINKS.token(longest)) <= TOKEN_LIMIT
    assert LINKS.read(LINKS.token(longest)) == longest
    assert len("List-Unsubscribe: <>") + len(url) < 998


def test_a_token_that_was_changed_says_nothing() -> None:
    token = LINKS.token(KIM)
    said, signature = token.split(".")
    other = LINKS.token(Subscription("lee@example.com", 7, "newsletter")).split(".")[0]
    cut = (said, f"{said}.", token[:-4], token + "A")
    for forged in ("", ".", "é.é", f"{other}.{signature}", *cut):
        assert LINKS.read(forged) is None, forged
    for at in range(0, len(token), 7):
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        assert LINKS.read(changed) is None
    stranger = UnsubscribeLinks("https://hub.example", [b"another secret, also long"])
    assert stranger.read(token) is None


def test_a_secret_can_be_changed_without_breaking_links_that_are_out() -> None:
    settings = Environment(SETTINGS).replacing(EMAIL_UNSUBSCRIBE_SECRET=f"{SECRET * 2},{SECRET}")
    both = settings.read(UnsubscribeSettings).links()
    assert both is not None
    assert both.read(LINKS.token(KIM)) == KIM
    assert LINKS.read(both.token(KIM)) is None


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        ({}, None),
        ({"unsubscribe": True}, "PAYMENT_FAILED"),
        ({"unsubscribe": "news"}, "news"),
        ({"unsubscribe": False, "advertising": True}, None),
        ({"advertising": True}, "advertising"),
        ({"advertising": True, "unsubscribe": "sale"}, "sale"),
    ],
)
def test_which_list_a_mail_belongs_to(payload: dict[str, Any], name: str | None) -> None:
    message = a_message("kim@example.com", payload=payload)
    assert list_of(message) == name
    by_type = None if payload.get("unsubscribe") is False else name or "PAYMENT_FAILED"
    assert list_of(message, ("PAYMENT_FAILED",)) == by_type
    assert list_of(message, ("payment-service/PAYMENT_FAILED",)) == by_type
    assert list_of(message, ("other/PAYMENT_FAILED",)) == name


async def sent(payload: dict[str, Any], **settings: str) -> Mail:
    async with SmtpSink() as sink:
        environment = Environment({"SMTP_URL": sink.url, "SMTP_HELO_NAME": "h", **settings})
        channel = email.make(environment, make_services(make_http(environment)))
        message = a_message("Kim@Example.com", payload=payload, tenant_id=7)
        await send_one(channel, message)
        await channel.close()
        return sink.mails[0]


async def test_the_link_stands_in_the_headers_and_where_the_words_want_it() -> None:
    html = '<a href="%unsubscribe_url%">수신거부</a>'
    mail = await sent({"unsubscribe": "news", "html": html}, **SETTINGS)
    url = LINKS.url(Subscription("kim@example.com", 7, "news"))
    assert mail.message["List-Unsubscribe"] == f"<{url}>"
    assert mail.message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert mail.html.strip() == f'<a href="{url}">수신거부</a>'
    plain = await sent({"html": html}, **SETTINGS)
    assert plain.message["List-Unsubscribe"] is None
    by_type = await sent({}, EMAIL_UNSUBSCRIBE_TYPES="PAYMENT_FAILED", **SETTINGS)
    assert by_type.message["List-Unsubscribe"] is not None


def test_what_cannot_be_done_is_told_when_it_is_asked_for() -> None:
    channel = email.make(Environment({}), make_services(make_http(Environment({}))))
    for asked in (True, "news", 7, "", "x" * 101):
        (problem,) = channel.check(Draft("a@b.kr", "t", "m", None, {"unsubscribe": asked}))
        assert problem.place == "/payload/unsubscribe"
    environment = Environment(SETTINGS)
    able = email.make(environment, make_services(make_http(environment)))
    assert not able.check(Draft("a@b.kr", "t", "m", None, {"unsubscribe": True}))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ALLIM_PUBLIC_URL": "http://hub.example"}, "ALLIM_PUBLIC_URL must begin with https://"),
        ({"ALLIM_PUBLIC_URL": "https://hub.example/?a=1"}, "ALLIM_PUBLIC_URL must be a plain URL"),
        ({"EMAIL_UNSUBSCRIBE_SECRET": "short"}, "EMAIL_UNSUBSCRIBE_SECRET must be at least 16"),
        ({"EMAIL_UNSUBSCRIBE_TYPES": "NEWS"}, "EMAIL_UNSUBSCRIBE_TYPES needs ALLIM_PUBLIC_URL"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Environment(settings).read(UnsubscribeSettings)
