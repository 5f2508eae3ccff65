"""Whatever a caller writes: no other exception, no header of its own, nothing lost."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import SMTP, compat32

from hypothesis import given, settings
from hypothesis import strategies as st

from allim.channels.answers import retry_after
from allim.channels.json_bytes import json_bytes
from allim.channels.mail import Mailbox, compose, parse_mailbox, parse_sender
from allim.channels.shortening import ELLIPSIS, shortened, shortened_to_fit, utf16_length
from allim.channels.ssrf import AddressGuard
from allim.testing.channels import a_message

SENDER = parse_sender("알림 <no-reply@hub.example>")
KIM = Mailbox("kim", "example.com")
NOW = datetime(2026, 1, 2, tzinfo=UTC)
HEADERS = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
]
any_text = st.text(st.characters(codec=None))


@settings(max_examples=50, deadline=None)
@given(any_text)
def test_no_subject_adds_a_header(text: str) -> None:
    mail = compose(a_message(None, title=text), sender=SENDER, recipient=KIM, at=NOW).content()
    assert message_from_bytes(mail, policy=compat32).keys() == HEADERS
    assert all(len(line) <= 998 for line in mail.split(b"\r\n"))


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_every_body_arrives_as_it_was(text: str) -> None:
    message = a_message(None, message="." + text)
    mail = compose(message, sender=SENDER, recipient=KIM, at=NOW).content()
    part = message_from_bytes(mail, policy=SMTP)
    body = part.get_payload(decode=True)
    assert isinstance(body, bytes)
    lines = ("." + text).replace("\x00", "").replace("\r\n", "\n").replace("\r", "\n")
    assert body.decode().replace("\r\n", "\n").rstrip("\n") == lines.rstrip("\n")


@settings(max_examples=50, deadline=None)
@given(any_text)
def test_an_address_is_one_or_a_value_error(text: str) -> None:
    for address in (text, f"{text}@example.com", f"kim@{text}"):
        try:
            mailbox = parse_mailbox(address)
        except ValueError:
            continue
        assert not set(mailbox.address) & set("\r\n <>")
        assert mailbox.domain.isascii()


@settings(max_examples=50, deadline=None)
@given(any_text)
def test_a_url_is_judged_never_raised_over(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}/", f"https://h.example/{text}"):
        problem = AddressGuard().check_url(url)
        assert problem is None or problem


@settings(max_examples=50, deadline=None)
@given(any_text)
def test_a_retry_after_is_seconds_or_nothing(text: str) -> None:
    for value in (text, f"Mon, {text} Jan 2026 00:00:00 GMT", f"1 Jan 2026 00:00:00 +{text}"):
        seconds = retry_after({"Retry-After": value})
        assert seconds is None or seconds >= 0


@settings(max_examples=50, deadline=None)
@given(st.recursive(any_text | st.floats() | st.none(), lambda inner: st.lists(inner)))
def test_any_value_becomes_utf8(value: object) -> None:
    assert json_bytes({"value": value}).decode()


@settings(max_examples=100, deadline=None)
@given(any_text, st.integers(min_value=1, max_value=40))
def test_a_text_is_whole_or_its_beginning_with_an_ellipsis(text: str, limit: int) -> None:
    cut = shortened(text, limit)
    assert utf16_length(cut) <= limit
    if cut != text:
        assert utf16_length(text) > limit
        plain = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
        assert cut.endswith(ELLIPSIS)
        assert plain.startswith(cut.removesuffix(ELLIPSIS))


@settings(max_examples=100, deadline=None)
@given(any_text, st.integers(min_value=12, max_value=60))
def test_what_is_cut_to_fit_is_the_most_that_fits(text: str, limit: int) -> None:
    def written(kept: str) -> bytes:
        return json_bytes([kept])

    cut = shortened_to_fit(text, limit, written)
    assert len(cut) <= limit
    if cut != written(text):
        kept = next(n for n in range(len(text)) if written(text[:n] + ELLIPSIS) == cut)
        assert len(written(text[: kept + 1] + ELLIPSIS)) > limit
