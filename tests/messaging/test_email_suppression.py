"""Who is not written to any more: hard bounces, reports of providers, and one click."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from allim.app import create_app
from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.channels.email import NAME as EMAIL
from allim.channels.unsubscribing import Subscription, UnsubscribeSettings
from allim.database.pool import Database
from allim.hub.delivery_box import DeliveryBox
from allim.messaging.email_reports import read_mail, sent_as
from allim.messaging.policies import messaging_policies
from allim.relay.lane import Lane
from allim.relay.policy import combine
from allim.relay.single_pass import SinglePass
from allim.testing.smtp import SmtpSink, Step
from tests.foundations import open_channels
from tests.hub.conftest import Api
from tests.serving import serving

KEY = "w" * 20
KIM = "kim@example.com"


class Mailing:
    """The API, the e-mail lane of a relay, and the mail server."""

    def __init__(
        self, api: Api, database: Database, smtp: SmtpSink, environment: Environment
    ) -> None:
        self.api, self.database, self.smtp, self.environment = api, database, smtp, environment
        self.channel: Channel
        self.run_pass: Any

    async def send(
        self, recipient: str = KIM, *, tenant_id: int | None = None, **more: Any
    ) -> dict[str, Any]:
        """Post a mail and let the relay do what is due; the delivery as it is shown then."""
        delivery = {"channel": EMAIL, "recipient": recipient, **more}
        words = {"source": "shop", "type": "NEWS", "message": "hi"}
        body = {**words, "deliveries": [delivery], "tenant_id": tenant_id}
        created = await self.api.create(body)
        assert created.status == 202, created.body
        await self.run_pass()
        shown = (await self.api.get(created.headers["Location"])).json["deliveries"]
        (found,) = shown
        return dict(found)

    async def report(self, *events: Any, key: str = KEY, **more: Any) -> Any:
        headers = {"X-Allim-Secret": key}
        return await self.api.post(
            "/receipts/email", json={"events": list(events)}, headers=headers, **more
        )

    async def suppressed(self) -> list[dict[str, Any]]:
        """The whole list."""
        items: list[dict[str, Any]] = (await self.api.get("/suppressions")).json["items"]
        return items


@pytest.fixture
async def mailing(database: Database) -> AsyncIterator[Mailing]:
    async with AsyncExitStack() as stack:
        smtp = await stack.enter_async_context(SmtpSink())
        environment = Environment(
            {
                "SMTP_URL": smtp.url,
                "SMTP_HELO_NAME": "here.test",
                "SMTP_FROM": "no-reply@hub.example",
                "ALLIM_PUBLIC_URL": "https://hub.example",
                "EMAIL_UNSUBSCRIBE_SECRET": "s" * 20,
                "EMAIL_WEBHOOK_SECRET": KEY,
            }
        )
        channels = await stack.enter_async_context(open_channels(environment))
        app = create_app(database, channels, environment)
        url = await stack.enter_async_context(serving(app))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        policies = await stack.enter_async_context(
            messaging_policies(database, channels, environment)
        )
        mailing = Mailing(Api(url, session, []), database, smtp, environment)
        passes = SinglePass(DeliveryBox(database))
        lane = Lane(EMAIL, channels[EMAIL], combine(policies.of(EMAIL)))
        mailing.run_pass = lambda: passes.run(lane, 100)
        yield mailing


async def test_an_address_that_is_gone_is_not_written_to_again(mailing: Mailing) -> None:
    mailing.smtp.reply(Step.RECIPIENT, "550 5.1.1 <kim@example.com> no such user")
    dead = await mailing.send("Kim@Example.com", row_key="r-1")
    assert (dead["status"], dead["error_code"]) == ("DEAD", "mailbox_unknown")
    mailing.smtp.reply(Step.RECIPIENT, None)
    connections = mailing.smtp.connections

    again = await mailing.send(fallback=[{"channel": "LOG"}])

    assert (again["status"], again["error_code"]) == ("SKIPPED", "suppressed")
    assert again["last_error"] == "the recipient is on the suppression list: hard_bounce"
    assert (mailing.smtp.mails, mailing.smtp.connections) == ([], connections), "nobody was called"
    (entry,) = await mailing.suppressed()
    assert entry["recipient_kind"] == "email"
    assert (entry["recipient"], entry["reason"], entry["delivery_id"], entry["tenant_id"]) == (
        KIM,
        "hard_bounce",
        dead["id"],
        None,
    )
    assert entry["detail"] == "550 5.1.1 <kim@example.com> no such user"
    await mailing.api.call("DELETE", f"/suppressions/{entry['id']}")
    assert (await mailing.send())["status"] == "SUCCESS"


@pytest.mark.parametrize("reply", ["554 5.7.1 blocked by policy", "552 5.2.2 mailbox full"])
async def test_a_refusal_for_another_reason_suppresses_nobody(mailing: Mailing, reply: str) -> None:
    mailing.smtp.reply(Step.RECIPIENT, reply)
    assert (await mailing.send())["status"] == "DEAD"
    assert await mailing.suppressed() == []


async def test_one_click_leaves_that_list_and_nothing_else(mailing: Mailing) -> None:
    await mailing.send(payload={"unsubscribe": "news"})
    link = str(mailing.smtp.mails[0].message["List-Unsubscribe"]).strip("<>")
    path = link.removeprefix("https://hub.example")

    asked = await mailing.api.get(path, headers={"Host": "hub.example"})
    assert (asked.status, asked.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "수신거부" in asked.body.decode()
    assert "ki*@example.com" in asked.body.decode()
    assert await mailing.suppressed() == [], "a scanner that follows links unsubscribes nobody"
    # As a mail provider posts (RFC 8058), and as the page's button does: without a referrer.
    one_click = {"List-Unsubscribe": "One-Click"}
    for headers in ({"Host": "hub.example"}, {"Host": "hub.example", "Origin": "null"}):
        done = await mailing.api.post(path, data=one_click, headers=headers)
        assert done.status == 200
        assert "You are unsubscribed" in done.body.decode()

    (entry,) = await mailing.suppressed()
    assert (entry["recipient"], entry["list"], entry["reason"]) == (KIM, "news", "unsubscribed")
    skipped = await mailing.send("KIM@example.com", payload={"unsubscribe": "news"})
    assert (skipped["status"], skipped["error_code"]) == ("SKIPPED", "unsubscribed")
    assert (await mailing.send())["status"] == "SUCCESS", "transactional mail still goes"
    assert (await mailing.send(payload={"unsubscribe": "sale"}))["status"] == "SUCCESS"


async def test_a_link_that_nobody_signed_does_nothing(mailing: Mailing) -> None:
    links = mailing.environment.replacing(EMAIL_UNSUBSCRIBE_SECRET="x" * 20).read(
        UnsubscribeSettings
    )
    made = links.links()
    assert made is not None
    for token in (made.token(Subscription(KIM, None, "news")), "a.b", "%3Cscript%3E"):
        for method in ("GET", "POST"):
            answer = await mailing.api.call(method, f"/unsubscribe/{token}")
            assert answer.status == 404
            assert "<script>" not in answer.body.decode()
    assert await mailing.suppressed() == []


def message_id(delivery: dict[str, Any], notification: str) -> str:
    return f"<allim.{delivery['id']}.{notification}@hub.example>"


async def test_what_providers_report_is_noted_and_learnt_once(mailing: Mailing) -> None:
    delivery = await mailing.send()
    ours = str(mailing.smtp.mails[0].message["Message-ID"])
    bounce = {"type": "bounce", "message_id": ours, "status": "5.1.1", "detail": "gone"}
    soft = {"type": "bounce", "recipient": "lee@example.com", "permanent": False, "status": "5.1.1"}
    full = {"type": "bounce", "recipient": "lee@example.com", "status": "5.2.2"}
    angry = {"type": "complaint", "recipient": "Park@example.com"}
    out = {"type": "unsubscribe", "recipient": "choi@example.com", "list": "news"}
    stray = {"type": "bounce", "message_id": "<x@y>", "permanent": True}
    named = {"type": "bounce", "recipient": "Kim <kim@b.kr>", "permanent": True}

    first = await mailing.report(bounce, soft, full, angry, out, stray, named)
    again = await mailing.report(bounce, {"type": "delivered", "message_id": ours})

    assert first.json == {"ok": True, "reports": 7, "matched": 1, "suppressed": 3}
    assert again.json == {"ok": True, "reports": 2, "matched": 2, "suppressed": 0}
    found = {
        (entry["recipient"], entry["reason"], entry["list"], entry["delivery_id"])
        for entry in await mailing.suppressed()
    }
    assert found == {
        (KIM, "hard_bounce", None, delivery["id"]),
        ("park@example.com", "complaint", None, None),
        ("choi@example.com", "unsubscribed", "news", None),
    }
    shown = (await mailing.api.get(f"/deliveries/{delivery['id']}")).json
    assert (shown["status"], shown["receipt_status"]) == ("SUCCESS", "FAILED")


async def test_a_bounce_counts_whatever_else_is_said_of_the_mail(mailing: Mailing) -> None:
    delivery = await mailing.send()
    ours = str(mailing.smtp.mails[0].message["Message-ID"])
    guessed = ours.replace(ours.split(".")[2].split("@")[0], "0190163d-8694-739b-aea5-966c26f8ad91")
    out = {"type": "unsubscribe", "message_id": ours, "list": "news"}
    full = {"type": "bounce", "message_id": ours, "status": "5.2.2"}
    arrived = {"type": "delivered", "message_id": guessed}
    await mailing.report(arrived, out, full)
    shown = (await mailing.api.get(f"/deliveries/{delivery['id']}")).json
    assert shown["receipt_status"] == "FAILED"


async def test_reports_need_the_secret_and_their_shape(mailing: Mailing) -> None:
    event = {"type": "bounce", "recipient": KIM, "permanent": True}
    assert (await mailing.report(event, key="wrong")).json["code"] == "wrong_secret"
    for headers in (
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": "Basic " + base64.b64encode(f"any:{KEY}".encode()).decode()},
    ):
        answer = await mailing.api.post(
            "/receipts/email", json={"events": [event]}, headers=headers
        )
        assert answer.status == 200
    wrong = await mailing.report({"type": "bounce"}, {**event, "type": "x"}, {**event, "a": 1})
    assert (wrong.status, len(wrong.json["errors"])) == (422, 3)
    text = await mailing.api.post(
        "/receipts/email", data=b"x", headers={"X-Allim-Secret": KEY, "Content-Type": "text/plain"}
    )
    assert text.status == 415


def a_bounce_mail(message_id: str, action: str = "failed", status: str = "5.1.1") -> bytes:
    return (
        "From: MAILER-DAEMON@mx.example\r\nTo: no-reply@hub.example\r\nSubject: Undelivered\r\n"
        "MIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
        "--b\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n"
        "--b\r\nContent-Type: message/delivery-status\r\n\r\n"
        "Reporting-MTA: dns; mx.example\r\n\r\n"
        f"Final-Recipient: rfc822; somebody-else@example.com\r\nAction: {action}\r\n"
        f"Status: {status}\r\nDiagnostic-Code: smtp; 550 5.1.1\r\n"
        " <kim@example.com> unknown\r\n\r\n"
        "--b\r\nContent-Type: message/rfc822\r\n\r\n"
        f"From: no-reply@hub.example\r\nMessage-ID: {message_id}\r\n\r\nhi\r\n--b--\r\n"
    ).encode()


async def test_a_bounce_mail_is_believed_only_about_a_mail_of_ours(mailing: Mailing) -> None:
    async def post(content: bytes) -> Any:
        headers = {"X-Allim-Secret": KEY, "Content-Type": "message/rfc822"}
        return (await mailing.api.post("/receipts/email", data=content, headers=headers)).json

    await mailing.send()
    ours = str(mailing.smtp.mails[0].message["Message-ID"])
    guessed = ours.replace(ours.split(".")[2].split("@")[0], "0190163d-8694-739b-aea5-966c26f8ad91")
    for content in (b"", b"\xff\xfe", a_bounce_mail("<x@y>"), a_bounce_mail(guessed)):
        assert (await post(content))["suppressed"] == 0
    assert (await post(a_bounce_mail(ours, action="delayed", status="4.2.2")))["reports"] == 0
    assert (await post(a_bounce_mail(ours, status="5.2.2")))["suppressed"] == 0

    assert await post(a_bounce_mail(ours)) == {
        "ok": True,
        "reports": 1,
        "matched": 1,
        "suppressed": 1,
    }
    (entry,) = await mailing.suppressed()
    assert (entry["recipient"], entry["reason"]) == (KIM, "hard_bounce")
    assert entry["detail"] == "5.1.1 550 5.1.1 <kim@example.com> unknown"


async def test_a_bounce_mail_of_one_tenant_speaks_for_that_tenant_only(mailing: Mailing) -> None:
    # Who sends a mail knows its Message-ID, and can write a bounce of it to the bounce mailbox.
    await mailing.database.fetch("INSERT INTO tenant (id, name) VALUES (7, 'a') RETURNING id")
    await mailing.send(tenant_id=7)
    ours = str(mailing.smtp.mails[0].message["Message-ID"])
    headers = {"X-Allim-Secret": KEY, "Content-Type": "message/rfc822"}
    await mailing.api.post("/receipts/email", data=a_bounce_mail(ours), headers=headers)

    (entry,) = await mailing.suppressed()
    assert (entry["recipient"], entry["tenant_id"]) == (KIM, 7)
    assert (await mailing.send())["status"] == "SUCCESS"
    assert (await mailing.send(tenant_id=7))["status"] == "SKIPPED"


def test_a_complaint_mail_is_read() -> None:
    ours = "<allim.7.0190163d-8694-739b-aea5-966c26f8ad91@hub.example>"
    mail = (
        'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\r\n\r\n'
        "--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n\r\n"
        f"--b\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: {ours}\r\n\r\n--b--\r\n"
    )
    (report,) = read_mail(mail.encode())
    assert (report.type, report.message_id) == ("complaint", ours)
    assert sent_as(ours) is not None
    assert sent_as("<allim.99999999999999999999.x@y>") is None


async def test_an_address_can_be_put_on_the_list_for_one_list(mailing: Mailing) -> None:
    added = await mailing.api.post("/suppressions", json={"recipient": KIM, "list": "news"})
    assert (added.status, added.json["recipient_kind"], added.json["list"]) == (
        201,
        "email",
        "news",
    )
    assert (await mailing.send(payload={"unsubscribe": "news"}))["status"] == "SKIPPED"
    assert (await mailing.send())["status"] == "SUCCESS"
    # It would look like an opt-out, and texts would go on.
    phone = await mailing.api.post(
        "/suppressions", json={"recipient": "01012345678", "list": "news"}
    )
    assert (phone.status, phone.json["errors"][0]["place"]) == (422, "/list")
    everything = await mailing.api.post("/suppressions", json={"recipient": KIM})
    assert everything.json["id"] != added.json["id"]
    assert (await mailing.send())["error_code"] == "suppressed"
