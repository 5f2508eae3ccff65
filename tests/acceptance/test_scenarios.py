"""The three scenarios of the hub's specification, through HTTP against `allim up`."""

from __future__ import annotations

from allim.testing.http import HttpSink
from tests.acceptance.conftest import Mailbox
from tests.programs import Program, Start

SLACK_PATH = "/services/T0/B0/secret"


async def hub(start: Start, database_url: str, slack: HttpSink, mailbox: Mailbox) -> Program:
    return await start(
        "up",
        DATABASE_URL=database_url,
        SLACK_WEBHOOK_URL=slack.url + SLACK_PATH,
        SMTP_URL=mailbox.url,
        SMTP_FROM="쇼핑몰 <shop@example.com>",
    )


async def test_a_completed_order_reaches_the_customer_by_mail(
    start: Start, database_url: str, slack: HttpSink, mailbox: Mailbox
) -> None:
    allim = await hub(start, database_url, slack, mailbox)
    identity = await allim.create(
        source="order-service",
        type="ORDER_COMPLETED",
        title="주문이 완료되었습니다",
        message="주문번호 A-1024",
        deliveries=[{"channel": "EMAIL", "recipient": "kim@example.com"}],
    )
    await allim.attempts(identity, 1)

    shown = await allim.show(identity)
    assert shown["status"] == "COMPLETED"
    (delivery,) = shown["deliveries"]
    assert delivery["status"] == "SUCCESS"
    (attempt,) = delivery["attempts"]
    assert attempt["outcome"] == "DELIVERED"
    assert attempt["finished_at"] >= attempt["started_at"]
    ((to, mail),) = mailbox.mails
    assert to == "kim@example.com"
    assert mail["Subject"] == "주문이 완료되었습니다"
    assert mail["From"] == "쇼핑몰 <shop@example.com>"
    body = mail.get_body()
    assert body is not None
    assert "주문번호 A-1024" in body.get_content()


async def test_a_failed_payment_reaches_customer_and_operators(
    start: Start, database_url: str, slack: HttpSink, mailbox: Mailbox
) -> None:
    allim = await hub(start, database_url, slack, mailbox)
    identity = await allim.create(
        source="payment-service",
        type="PAYMENT_FAILED",
        title="결제 실패",
        message="카드 승인이 거절되었습니다",
        deliveries=[{"channel": "EMAIL", "recipient": "kim@example.com"}, {"channel": "SLACK"}],
    )
    await allim.attempts(identity, 2)

    shown = await allim.show(identity)
    assert shown["status"] == "COMPLETED"
    assert {d["channel"]: d["status"] for d in shown["deliveries"]} == {
        "EMAIL": "SUCCESS",
        "SLACK": "SUCCESS",
    }
    assert [to for to, _ in mailbox.mails] == ["kim@example.com"]
    (request,) = slack.requests
    assert request.path == SLACK_PATH
    assert "결제 실패" in request.json["text"]
    assert "카드 승인이 거절되었습니다" in request.json["text"]


async def test_an_outage_reaches_the_operators_on_slack(
    start: Start, database_url: str, slack: HttpSink, mailbox: Mailbox
) -> None:
    allim = await hub(start, database_url, slack, mailbox)
    identity = await allim.create(
        source="monitoring",
        type="SYSTEM_OUTAGE",
        title="시스템 장애",
        message="결제 API가 응답하지 않습니다",
        priority="high",
        deliveries=[{"channel": "SLACK"}],
    )
    (line,) = await allim.attempts(identity, 1)

    assert (await allim.show(identity))["status"] == "COMPLETED"
    assert "결제 API가 응답하지 않습니다" in slack.requests[0].json["text"]
    assert not mailbox.mails
    # The line tells everything but the message, its recipient and the webhook's secret.
    assert line["channel"] == "SLACK"
    assert line["outcome"] == "DELIVERED"
    assert line["http_status"] == 200
    said = str(allim.events)
    assert "secret" not in said
    assert "응답하지" not in said
