"""A template from a file to a mail and to Slack, and quiet hours, through commands and HTTP."""

from __future__ import annotations

import json
from pathlib import Path

from allim.testing.http import HttpSink
from tests.acceptance.conftest import Mailbox
from tests.programs import Start, allim

MAIL = """
code = "ORDER_DONE"
channel = "EMAIL"
language = "ko"
subject = "{{ name }}님의 주문 {{ order_id }}"
html = '''
<style>p { color: #333 }</style>
<p>{{ name }}님, <a href="https://shop.kr/{{ order_id }}">주문</a>이 완료되었습니다.</p>
'''
"""
BLOCKS = [
    {"type": "header", "text": {"type": "plain_text", "text": "주문 {{ order_id }}"}},
    {"type": "section", "text": {"type": "mrkdwn", "text": "{{ name }}님 <{{ type }}>"}},
]


async def test_templates_from_a_file_to_the_reader(
    start: Start, place: Path, database_url: str, slack: HttpSink, mailbox: Mailbox
) -> None:
    (place / "mail.toml").write_text(MAIL)
    (place / "slack.json").write_text(
        json.dumps({"code": "ORDER_DONE", "channel": "SLACK", "blocks": BLOCKS})
    )
    files = ("mail.toml", "slack.json")
    pushed = await allim("template", "push", *files, cwd=place, DATABASE_URL=database_url)
    again = await allim("template", "push", *files, cwd=place, DATABASE_URL=database_url)
    assert (pushed.code, pushed.out) == (
        0,
        "ORDER_DONE EMAIL ko v1: stored\nORDER_DONE SLACK v1: stored\n",
    ), pushed.err
    assert "ORDER_DONE EMAIL ko v1: nothing new" in again.out
    (place / "bad.toml").write_text('code = "X"\nchannel = "EMAIL"\nhtml = "{% if %}"')
    bad = await allim("template", "push", "bad.toml", cwd=place, DATABASE_URL=database_url)
    assert bad.code != 0
    assert "bad.toml /html: line 1" in bad.err

    hub = await start(
        "up",
        DATABASE_URL=database_url,
        SLACK_WEBHOOK_URL=slack.url + "/services/T0/B0/secret",
        SMTP_URL=mailbox.url,
    )
    identity = await hub.create(
        type="ORDER_COMPLETED",
        data={"name": '김"철수', "order_id": "A-1024"},
        deliveries=[
            {
                "channel": "EMAIL",
                "recipient": "kim@example.com",
                "template_code": "ORDER_DONE",
                "language": "ko-KR",
                "then": [{"channel": "SLACK", "template_code": "ORDER_DONE"}],
            }
        ],
    )
    await hub.attempts(identity, 2)

    assert (await hub.show(identity))["status"] == "COMPLETED"
    ((_, mail),) = mailbox.mails
    assert mail["Subject"] == '김"철수님의 주문 A-1024'
    assert mail.get_content_type() == "multipart/alternative"
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert plain.get_content().strip() == (
        '김"철수님, 주문 (https://shop.kr/A-1024)이 완료되었습니다.'
    )
    assert '<p style="color: #333;">김"철수님' in html.get_content().replace("&quot;", '"')
    (request,) = slack.requests
    assert [block["text"]["text"] for block in request.json["blocks"]] == [
        "주문 A-1024",
        '김"철수님 <ORDER_COMPLETED>',
    ]

    shown = await allim("template", "show", "ORDER_DONE", cwd=place, DATABASE_URL=database_url)
    assert shown.out.count('"version": 1') == 2
    data = '{"name": "Kim"}'
    arguments = ("preview", "ORDER_DONE", "--channel", "email", "--language", "ko", "--data", data)
    missing = await allim("template", *arguments, cwd=place, DATABASE_URL=database_url)
    assert missing.code != 0
    assert "needs order_id" in missing.err


async def test_quiet_hours_hold_in_a_running_relay(start: Start, database_url: str) -> None:
    hub = await start("up", DATABASE_URL=database_url)
    # All week but for one minute of it, so that whenever this runs it is quiet.
    for window in (
        {"from": "00:00", "until": "00:00", "days": [1, 2, 3, 4, 5, 6]},
        {"from": "00:00", "until": "23:59", "days": [7]},
    ):
        body = {**window, "channel": "LOG", "time_zone": "UTC"}
        assert (await hub.call("POST", "/quiet-hours", json=body))[0] == 201
    assert len((await hub.call("GET", "/quiet-hours"))[1]["items"]) == 2

    async def said(priority: str) -> str:
        identity = await hub.create(deliveries=[{"channel": "LOG"}], priority=priority)
        (line,) = await hub.attempts(identity, 1)
        return str(line["outcome"])

    # Relays go by what they knew a few seconds ago.
    while await said("normal") != "SNOOZED":
        pass
    assert await said("high") == "DELIVERED"
