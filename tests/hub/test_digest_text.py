"""What a message says that carries others: every service shows it, and takes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from allim.base.settings import Environment
from allim.channels.channel import Draft, Message
from allim.channels.registry import close_channels, make_channels, make_http, make_services
from allim.channels.shortening import utf16_length
from allim.hub.digest_text import Carried, can_carry, carrying
from allim.relay.outcomes import OutcomeKind
from allim.testing.channels import a_message, send_one
from allim.testing.http import Answer, HttpSink

HARD = "<&>*_[`|~" * 30
WIDE = "가😀" * 100
TEXTS = ["disk full", HARD, WIDE, "", "\n\n", 'a "quoted\\" one' * 20]
MANY = [Carried(n, f"n{n} {text}", text, "ALERT") for n in range(500) for text in TEXTS]
ANSWERS: Mapping[str, Answer] = {
    "SLACK": Answer.of(200, "ok"),
    "DISCORD": Answer.of(200, '{"id": "1"}'),
    "TEAMS": Answer.of(202),
    "TELEGRAM": Answer.of(200, '{"ok": true, "result": {"message_id": 1}}'),
}
DIVIDER = {"type": "divider"}
CARD = {"type": "AdaptiveCard", "body": [{"type": "TextBlock", "text": "own"}]}
PAYLOADS: list[tuple[str, dict[str, Any]]] = [
    ("SLACK", {}),
    ("SLACK", {"text": "own"}),
    ("SLACK", {"blocks": [DIVIDER] * 49}),
    ("DISCORD", {}),
    ("DISCORD", {"content": "own" * 300}),
    ("DISCORD", {"embeds": [{"title": "own"}]}),
    ("TEAMS", {}),
    ("TEAMS", {"card": CARD}),
    ("TELEGRAM", {}),
    *(("TELEGRAM", {"text": "own", "parse_mode": m}) for m in ("HTML", "MarkdownV2", "Markdown")),
    ("TELEGRAM", {"text": "own" * 600}),
]


def slack_takes(said: Any) -> str:
    sections = [block["text"]["text"] for block in said.get("blocks", []) if "text" in block]
    assert all(len(text) <= 3000 for text in sections)
    assert len(said["text"]) < 40_000
    return "".join(sections) or str(said["text"])


def discord_takes(said: Any) -> str:
    assert utf16_length(said["content"]) <= 2000
    return str(said["content"]).replace("\\", "")


def teams_takes(said: Any) -> str:
    text = json.dumps(said, ensure_ascii=False)
    assert len(text.encode()) <= 28 * 1024
    return text


def telegram_takes(said: Any) -> str:
    assert utf16_length(said["text"].replace("\\", "")) <= 4096 * 2
    return str(said["text"]).replace("\\", "")


TAKES: Mapping[str, Callable[[Any], str]] = {
    "SLACK": slack_takes,
    "DISCORD": discord_takes,
    "TEAMS": teams_takes,
    "TELEGRAM": telegram_takes,
}


@pytest.mark.parametrize(("name", "payload"), PAYLOADS)
@pytest.mark.parametrize("own", ["short", WIDE * 200, HARD * 100, None])
async def test_the_others_are_seen_whatever_the_message_says(
    name: str, payload: dict[str, Any], own: str | None
) -> None:
    async with HttpSink() as sink:
        environment = Environment(
            {
                "SLACK_WEBHOOK_URL": f"{sink.url}/hook",
                "DISCORD_WEBHOOK_URL": f"{sink.url}/hook",
                "TEAMS_WEBHOOK_URL": f"{sink.url}/hook",
                "TELEGRAM_BOT_TOKEN": "123456789:AAF" + "a" * 32,
                "TELEGRAM_API_URL": sink.url,
            }
        )
        http = make_http(environment)
        channels = make_channels(environment, make_services(http))
        sink.answer(ANSWERS[name])
        chat = "1" if name == "TELEGRAM" else None
        given = a_message(chat, channel=name, title="title", message=own, payload=payload)
        assert can_carry(given)

        message = carrying(given, MANY)
        outcome = await send_one(channels[name], message)

        await close_channels(channels)
        await http.close()
    assert outcome.kind is OutcomeKind.DELIVERED, outcome
    assert channels[name].check(_draft(message)) in ([], ()), "as good as what is posted"
    shown = TAKES[name](sink.requests[0].json)
    assert "+3000:" in shown
    assert "n0 disk full" in shown
    assert " more" in shown
    if own == "short" and not payload:
        assert "short" in shown


def test_a_mail_shows_them_in_its_text_and_in_its_page() -> None:
    mail = a_message("a@b.kr", channel="EMAIL", title="t", message="own", payload={})
    page = {"html": "<html><body><p>own</p></body></html>"}
    both, only = replace(mail, payload=page), replace(mail, payload=page, message=None)
    assert str(carrying(mail, MANY).message).startswith("own\n\n+3000:\n• n0 disk full disk full\n")
    shown = carrying(both, MANY)
    assert "+3000:" in str(shown.message)
    assert shown.payload["html"].endswith("more</li></ul></body></html>")
    assert "<&>" not in shown.payload["html"]
    assert carrying(only, MANY).message is None, "its text is made of its page"


def test_what_has_no_room_goes_by_itself() -> None:
    def goes(channel: str, **parts: Any) -> bool:
        return not can_carry(a_message(None, channel=channel, **parts))

    assert goes("SLACK", payload={"blocks": [DIVIDER] * 50})
    assert goes("SLACK", payload={"text": "x" * 30_000})
    assert goes("DISCORD", payload={"content": "x" * 1500})
    assert goes("TELEGRAM", payload={"text": "x" * 4000})
    assert goes("TEAMS", payload={"card": {**CARD, "body": [{"text": "x" * 20_000}]}})
    assert goes("TEAMS", payload={"card": {"type": "AdaptiveCard"}})
    assert goes("WEBPUSH", payload={"body": {}})
    assert goes("WEBPUSH", data={"x": "y" * 2000})


def test_a_push_stays_small() -> None:
    push = a_message("x", channel="WEBPUSH", title="t", message=WIDE * 100, data={"k": "v" * 1000})
    assert can_carry(push)
    words = carrying(push, MANY).message or ""
    assert len(json.dumps(words, ensure_ascii=False).encode()) <= 2400
    assert "+3000:" in words


def _draft(message: Message) -> Draft:
    return Draft(message.recipient, message.title, message.message, None, message.payload)
