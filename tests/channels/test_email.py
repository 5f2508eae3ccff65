"""EMAIL on a local SMTP server: conformance, what the mail looks like, what replies mean."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from structlog.testing import capture_logs

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels import email
from allim.channels.channel import Draft
from allim.channels.registry import make_http, make_services
from allim.channels.smtp_server import SmtpServer, StartTls
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.testing.channels import (
    ChannelConformance,
    ChannelRig,
    Mood,
    a_message,
    send_one,
)
from allim.testing.smtp import CUT, HANG, SmtpSink, Step

LOGIN = ("mailer@example.com", "s3cret-pa55")
SETTINGS = {
    "SMTP_FROM": "알림 허브 <no-reply@hub.example>",
    "EMAIL_TIMEOUT_SECONDS": "20",
    "SMTP_HELO_NAME": "here.test",
}


class EmailRig(ChannelRig):
    recipient = "kim@example.com"
    bad_recipients = (None, "", "kim", "a@b@c", "kim@", "@example.com", "01012345678", "a b@x.kr")
    secrets = ("s3cret-pa55", b"s3cret-pa55".hex())

    def __init__(self, sink: SmtpSink, **settings: str) -> None:
        self.sink = sink
        environment = Environment(
            {"SMTP_URL": sink.url.replace("mailer@", "mailer%40"), **SETTINGS, **settings}
        )
        self.channel = email.make(environment, make_services(make_http(environment)))

    async def turn(self, mood: Mood) -> None:
        await self.sink.stop()
        if mood is not Mood.DOWN:
            await self.sink.start()
        for step in Step:
            self.sink.reply(step, None)
        if mood is Mood.HANGING:
            self.sink.reply(Step.CONTENT, HANG)
        if mood is Mood.GARBAGE:
            self.sink.reply(Step.SENDER, "\xff\xfe no SMTP at all")

    async def received(self) -> Sequence[str]:
        return [mail.text for mail in self.sink.mails]

    async def all_closed(self) -> None:
        await self.sink.all_closed()


@asynccontextmanager
async def _rig(**settings: str) -> AsyncIterator[EmailRig]:
    async with SmtpSink(login=LOGIN) as sink:
        rig = EmailRig(sink, **settings)
        yield rig
        await rig.channel.close()


class TestConformance(ChannelConformance):
    def rig(self) -> AbstractAsyncContextManager[ChannelRig]:
        return _rig(EMAIL_TIMEOUT_SECONDS="2")


async def _replied(step: Step, reply: str, **settings: str) -> Outcome:
    async with _rig(**settings) as rig:
        rig.sink.reply(step, reply)
        return await send_one(rig.channel, a_message(rig.recipient))


async def test_the_mail_is_as_it_should_be() -> None:
    async with _rig() as rig:
        outcome = await send_one(rig.channel, a_message("kim@example.com"))
        (mail,) = rig.sink.mails
    assert (outcome.kind, outcome.response) == (OutcomeKind.DELIVERED, "2.0.0 queued")
    assert (mail.sender, mail.recipient) == ("no-reply@hub.example", "kim@example.com")
    message = mail.message
    assert message["Subject"] == "결제 실패"
    assert str(message["From"]) == "알림 허브 <no-reply@hub.example>"
    assert message["To"] == "kim@example.com"
    assert message["Message-ID"] == (
        "<allim.4711.0190163d-8694-739b-aea5-966c26f8ad91@hub.example>"
    )
    assert message["Date"]
    assert mail.text == "카드 승인이 거절되었습니다\n"
    assert mail.content.isascii()


async def test_html_goes_beside_the_text() -> None:
    html = "<p>카드 승인이 <b>거절</b>되었습니다</p>"
    async with _rig() as rig:
        await send_one(rig.channel, a_message("kim@example.com", payload={"html": html}))
        (mail,) = rig.sink.mails
    assert mail.message.get_content_type() == "multipart/alternative"
    assert mail.html.strip() == html
    assert mail.text == "카드 승인이 거절되었습니다\n"


async def test_html_alone_gets_a_text_of_its_words() -> None:
    html = "<head><title>no</title></head><p>Card <b>declined</b></p><script>no()</script><p>Bye"
    async with _rig() as rig:
        await send_one(
            rig.channel, a_message("kim@example.com", message=None, payload={"html": html})
        )
        (mail,) = rig.sink.mails
    assert mail.text.split("\n") == ["Card declined", "Bye", ""]


async def test_the_payload_may_name_subject_reply_address_and_unsubscribing() -> None:
    payload = {
        "subject": "주문 확인",
        "reply_to": "help@shop.example",
        "unsubscribe_url": "https://shop.example/u/1",
    }
    async with _rig() as rig:
        await send_one(rig.channel, a_message("kim@example.com", payload=payload))
        message = rig.sink.mails[0].message
    assert message["Subject"] == "주문 확인"
    assert message["Reply-To"] == "help@shop.example"
    assert message["List-Unsubscribe"] == "<https://shop.example/u/1>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


@pytest.mark.parametrize(
    "title",
    [
        "a\r\nBcc: all@example.com",
        "a\nBcc: all@example.com",
        "a\rBcc: all@example.com",
        "a\x0bBcc: all@example.com",
        "a\u2028Bcc: all@example.com",
        "a\x85Bcc: all@example.com",
        "=?utf-8?q?a=0D=0ABcc:_all@example.com?=",
    ],
)
async def test_no_title_can_add_a_header(title: str) -> None:
    async with _rig() as rig:
        await send_one(rig.channel, a_message("kim@example.com", title=title))
        (mail,) = rig.sink.mails
    assert mail.message["Bcc"] is None
    assert "\nBcc" not in mail.content.decode()
    assert mail.message["Subject"].startswith("a ") or mail.message["Subject"] == title


async def test_a_body_cannot_end_the_mail_early() -> None:
    body = "one\r\n.\r\nMAIL FROM:<evil@example.com>\r\n..two\r\n.\r"
    async with _rig() as rig:
        await send_one(rig.channel, a_message("kim@example.com", message=body))
        (mail,) = rig.sink.mails
    assert "MAIL FROM:<evil@example.com>" in mail.text
    assert "..two" in mail.text


@pytest.mark.parametrize(
    ("reply", "kind"),
    [("451 4.3.0 later", OutcomeKind.RETRY), ("554 5.7.1 no", OutcomeKind.REFUSED)],
)
@pytest.mark.parametrize("step", [Step.SENDER, Step.RECIPIENT, Step.DATA, Step.CONTENT])
async def test_4xx_is_tried_again_and_5xx_refused(
    step: Step, reply: str, kind: OutcomeKind
) -> None:
    outcome = await _replied(step, reply)
    assert (outcome.kind, outcome.code) == (kind, f"smtp_{reply[:3]}")
    assert outcome.response == reply


@pytest.mark.parametrize("step", [Step.GREETING, Step.EHLO])
async def test_a_server_that_will_not_talk_to_us_is_not_the_mails_fault(step: Step) -> None:
    with capture_logs() as logs:
        refused = await _replied(step, "554 5.7.1 go away")
    assert refused.kind is OutcomeKind.FAULT
    assert [line["log_level"] for line in logs] == ["error"]
    busy = await _replied(step, "421 4.3.2 too busy")
    assert (busy.kind, busy.code) == (OutcomeKind.RETRY, "smtp_421")


async def test_a_wrong_password_is_not_the_mails_fault() -> None:
    with capture_logs() as logs:
        outcome = await _replied(Step.LOGIN, "535 5.7.8 bad credentials")
    assert (outcome.kind, outcome.code) == (OutcomeKind.FAULT, "smtp_auth_failed")
    assert [(line["log_level"], line["event"]) for line in logs] == [("error", "smtp_refuses_us")]
    wanted = await _replied(Step.SENDER, "530 5.7.0 authentication required")
    assert (wanted.kind, wanted.code) == (OutcomeKind.FAULT, "smtp_auth_failed")


async def test_an_unknown_mailbox_has_its_own_code() -> None:
    outcome = await _replied(Step.RECIPIENT, "550 5.1.1 no such user")
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "mailbox_unknown")


@pytest.mark.parametrize(
    ("step", "what", "code"),
    [
        (Step.GREETING, HANG, "timeout"),
        (Step.RECIPIENT, HANG, "timeout"),
        (Step.CONTENT, HANG, "timeout_after_data"),
        (Step.GREETING, CUT, "connect_failed"),
        (Step.SENDER, CUT, "connection_lost"),
        (Step.RECIPIENT, CUT, "connection_lost"),
        (Step.CONTENT, CUT, "connection_lost_after_data"),
        (Step.SENDER, "garbage", "bad_answer"),
        (Step.CONTENT, "garbage", "bad_answer_after_data"),
    ],
)
async def test_what_breaks_is_tried_again_and_tells_whether_it_may_have_arrived(
    step: Step, what: str, code: str
) -> None:
    patience = {"EMAIL_TIMEOUT_SECONDS": "2"} if what == HANG else {}
    outcome = await _replied(step, what, **patience)
    assert (outcome.kind, outcome.code) == (OutcomeKind.RETRY, code)
    once = await _replied(step, what, EMAIL_AT_MOST_ONCE="true", **patience)
    late = code.endswith("_after_data")
    assert once.kind is (OutcomeKind.UNKNOWN if late else OutcomeKind.RETRY)


async def test_connections_are_used_again() -> None:
    async with _rig() as rig:
        for _ in range(5):
            await send_one(rig.channel, a_message(rig.recipient))
        rig.sink.reply(Step.RECIPIENT, "550 5.1.1 no")
        await send_one(rig.channel, a_message(rig.recipient))
        rig.sink.reply(Step.RECIPIENT, None)
        await send_one(rig.channel, a_message(rig.recipient))
        assert len(rig.sink.mails) == 6
        assert rig.sink.connections == 1


async def test_a_connection_that_died_idle_costs_no_attempt() -> None:
    async with _rig() as rig:
        await send_one(rig.channel, a_message(rig.recipient))
        await rig.sink.cut_all()
        outcome = await send_one(rig.channel, a_message(rig.recipient))
        assert rig.sink.connections == 2
    assert outcome.kind is OutcomeKind.DELIVERED


async def test_a_connection_that_the_server_is_tired_of_costs_no_attempt() -> None:
    async with _rig() as rig:
        await send_one(rig.channel, a_message(rig.recipient))
        rig.sink.reply_once(Step.SENDER, "421 4.4.2 idle for too long")
        outcome = await send_one(rig.channel, a_message(rig.recipient))
        assert rig.sink.connections == 2
    assert outcome.kind is OutcomeKind.DELIVERED


async def test_a_utf8_address_needs_a_server_that_takes_it() -> None:
    async with _rig() as rig:
        rig.sink.smtputf8 = True
        outcome = await send_one(rig.channel, a_message("김@예시.kr"))
        (mail,) = rig.sink.mails
    assert outcome.kind is OutcomeKind.DELIVERED
    assert mail.recipient == "김@xn--vv4b11d.kr"
    async with _rig() as rig:
        outcome = await send_one(rig.channel, a_message("김@예시.kr"))
        plain = await send_one(rig.channel, a_message("kim@예시.kr"))
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "smtputf8_unsupported")
    assert plain.kind is OutcomeKind.DELIVERED


async def test_without_a_server_the_mail_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    environment = Environment({})
    channel = email.make(environment, make_services(make_http(environment)))
    assert channel.configured().mode == "mock"
    outcome = await send_one(channel, a_message("kim@example.com"))
    assert (outcome.kind, outcome.code) == (OutcomeKind.DELIVERED, "mock")
    out = capsys.readouterr().out
    assert "To:      kim@example.com" in out
    assert "Subject: 결제 실패" in out
    assert "카드 승인이 거절되었습니다" in out


async def test_diagnose_logs_in_and_says_what_is_wrong() -> None:
    async with _rig() as rig:
        assert await rig.channel.diagnose() is None
        rig.sink.reply(Step.LOGIN, "535 5.7.8 bad credentials")
        problem = await rig.channel.diagnose()
    assert problem is not None
    assert "535" in problem
    assert "s3cret" not in problem


@pytest.mark.parametrize(
    "payload", [{"html": 7}, {"subject": []}, {"reply_to": "x"}, {"unsubscribe_url": "http://x"}]
)
async def test_a_wrong_payload_is_named(payload: dict[str, object]) -> None:
    async with _rig() as rig:
        (problem,) = rig.channel.check(Draft("kim@example.com", "t", "m", None, payload))
    assert problem.place == f"/payload/{next(iter(payload))}"


def test_an_smtp_url_says_where_and_how() -> None:
    assert SmtpServer.of_url("smtp://mail.example") == SmtpServer("mail.example", 25)
    assert SmtpServer.of_url("smtp://u%40x:p%2Fw@mail.example") == SmtpServer(
        "mail.example", 587, "u@x", "p/w", starttls=StartTls.REQUIRED
    )
    assert SmtpServer.of_url("smtps://u:p@mail.example") == SmtpServer(
        "mail.example", 465, "u", "p", implicit_tls=True, starttls=StartTls.NEVER
    )
    assert SmtpServer.of_url("smtp://u:p@localhost:1025").starttls is StartTls.AUTO
    assert SmtpServer.of_url("smtp://m.example?starttls=never").starttls is StartTls.NEVER
    assert not SmtpServer.of_url("smtp://m.example?starttls=required&verify=no").verify
    assert "s3cret" not in repr(SmtpServer.of_url("smtp://u:s3cret@mail.example"))


@pytest.mark.parametrize(
    "url",
    [
        "mail.example",
        "http://u:s3cret@mail.example",
        "smtp://u:s3cret@",
        "smtp://u:s3cret@h:99999",
        "smtp://u:s3cret@h?starttls=maybe",
        "smtp://u:s3cret@h?tls=1",
    ],
)
def test_a_wrong_smtp_url_is_named_but_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="SMTP_URL") as caught:
        Environment({"SMTP_URL": url}).read(email.EmailSettings)
    assert "s3cret" not in str(caught.value)
