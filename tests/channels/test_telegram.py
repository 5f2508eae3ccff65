"""TELEGRAM on a local server that answers as the Bot API does."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels import telegram
from allim.channels.channel import Channel, ChannelServices, Draft, FillsIn
from allim.channels.pace import Pace
from allim.channels.registry import make_http, make_services
from allim.channels.shortening import utf16_length
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.testing.channels import ChannelConformance, ChannelRig, HttpRig, a_message, send_one
from allim.testing.http import Answer, Request

TOKEN = "123456789:AAs3cret-TOKEN_s3cret"
TAKEN = Answer.of(200, json.dumps({"ok": True, "result": {"message_id": 42, "text": "…" * 9000}}))


def refused(status: int, description: str, **parameters: Any) -> Answer:
    said = {"ok": False, "error_code": status, "description": description}
    return Answer.of(status, json.dumps({**said, "parameters": parameters} if parameters else said))


class TelegramRig(HttpRig):
    well = TAKEN
    recipient = "-1001234567890"
    bad_recipients = ("ops", "12a", "0", "@no", "https://t.me/ops", "")
    secrets = (TOKEN, "AAs3cret")

    def settings(self, url: str) -> Mapping[str, str]:
        return {
            "TELEGRAM_BOT_TOKEN": TOKEN,
            "TELEGRAM_API_URL": url,
            "TELEGRAM_TIMEOUT_SECONDS": "20",
        }

    def make(self, environment: Environment, services: ChannelServices) -> Channel:
        return telegram.make(environment, services)

    def text_of(self, request: Request) -> str:
        return html.unescape(request.json["text"])


class TestConformance(ChannelConformance):
    def rig(self) -> AbstractAsyncContextManager[ChannelRig]:
        return TelegramRig.open(TELEGRAM_TIMEOUT_SECONDS="2")


async def _answered(*answers: Answer, **settings: str) -> Outcome:
    async with TelegramRig.open(**settings) as rig:
        return await rig.send(*answers)


async def test_a_message_is_a_bold_title_over_plain_text() -> None:
    async with TelegramRig.open() as rig:
        outcome = await rig.send(title="A <b>\n& more", message="1 < 2 &amp; _x_")
        await rig.send(recipient="@allim_ops", title=None, message=None)
        first, second = rig.sink.requests
    assert (outcome.kind, outcome.provider_message_id) == (OutcomeKind.DELIVERED, "42")
    assert first.path == f"/bot{TOKEN}/sendMessage"
    assert first.json == {
        "chat_id": -1001234567890,
        "text": "<b>A &lt;b&gt; &amp; more</b>\n1 &lt; 2 &amp;amp; _x_",
        "parse_mode": "HTML",
    }
    assert (second.json["chat_id"], second.json["text"]) == ("@allim_ops", "PAYMENT_FAILED")


async def test_a_text_of_the_callers_own_and_options_are_passed_on() -> None:
    payload = {
        "text": "*own*",
        "parse_mode": "MarkdownV2",
        "message_thread_id": 5,
        "disable_notification": True,
        "reply_markup": {"inline_keyboard": []},
    }
    async with TelegramRig.open() as rig:
        assert rig.channel.check(Draft("7", None, None, None, payload)) == []
        await rig.send(payload=payload)
        (request,) = rig.sink.requests
    assert request.json == {"chat_id": -1001234567890, **payload}


async def test_a_long_message_is_cut_to_what_telegram_takes() -> None:
    async with TelegramRig.open() as rig:
        await rig.send(title="<" * 900, message="😀&" * 5000)
        (request,) = rig.sink.requests
    text = html.unescape(request.json["text"]).replace("<b>", "", 1).replace("</b>", "", 1)
    assert 4090 <= utf16_length(text) <= 4096
    assert text.endswith("…")


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (refused(400, "Bad Request: chat not found"), "REFUSED", "http_400"),
        (refused(403, "Forbidden: bot was blocked by the user"), "REFUSED", "http_403"),
        (refused(401, "Unauthorized"), "FAULT", "bad_token"),
        (refused(404, "Not Found"), "FAULT", "bad_token"),
        (refused(429, "Too Many Requests", retry_after=35), "RETRY", "rate_limited"),
        (refused(500, "Internal Server Error"), "RETRY", "http_500"),
        (Answer.of(502, "<html>Bad Gateway</html>"), "RETRY", "http_502"),
        (Answer.of(200, "<html>log in to the wifi</html>"), "RETRY", "bad_answer"),
        (Answer.of(200, '{"ok": false}'), "RETRY", "bad_answer"),
        (Answer.of(302, headers={"Location": "/"}), "REFUSED", "http_302"),
        (Answer.cut(), "RETRY", "connection_lost"),
    ],
)
async def test_what_answers_mean(answer: Answer, kind: str, code: str) -> None:
    with capture_logs() as logs:
        outcome = await _answered(answer)
    assert (outcome.kind, outcome.code) == (kind, code)
    assert not outcome.disable_target
    assert outcome.retry_after == (35.0 if code == "rate_limited" else None)
    assert bool(logs) is (code == "bad_token")


async def test_a_refusal_says_why() -> None:
    outcome = await _answered(refused(403, "Forbidden: bot was blocked by the user"))
    assert outcome.detail == "Telegram answered 403 Forbidden: bot was blocked by the user"


async def test_a_group_that_became_a_supergroup_is_called_by_its_new_id_at_once() -> None:
    moved = refused(400, "Bad Request: group chat was upgraded", migrate_to_chat_id=-100987)
    async with TelegramRig.open() as rig:
        outcome = await rig.send(moved, TAKEN, recipient="-987")
        chats = [request.json["chat_id"] for request in rig.sink.requests]
    assert chats == [-987, -100987]
    assert outcome.kind is OutcomeKind.DELIVERED
    assert "-100987" in (outcome.detail or "")


async def test_chats_are_targets_of_their_own_and_share_the_pace_of_the_bot() -> None:
    now = 100.0
    pace = Pace(25.0, now=lambda: now)
    assert [round(pace.seconds_to_turn(1) or 0.0, 2) for _ in range(3)] == [0.0, 0.04, 0.08]
    now += 60
    assert pace.seconds_to_turn(1) == 0.0
    async with TelegramRig.open() as rig:
        first, second = (rig.channel.target(a_message(chat)) for chat in ("-1001", "-1002"))
    assert first != second
    assert first.startswith("127.0.0.1#")


async def test_a_message_whose_turn_comes_too_late_waits_without_a_call() -> None:
    async with TelegramRig.open() as rig:
        channel = rig.channel
        assert isinstance(channel, telegram.TelegramChannel)
        now = 100.0
        channel._pace = Pace(0.01, now=lambda: now)
        outcomes = [await rig.send() for _ in range(3)]
        now += 100.0  # Turns that nobody could wait for were not taken.
        outcomes.append(await rig.send())
        assert len(rig.sink.requests) == 2
    assert [outcome.code for outcome in outcomes] == [None, "paced", "paced", None]
    assert outcomes[1].kind is OutcomeKind.SNOOZED


async def test_an_answer_that_echoes_the_token_is_kept_without_it() -> None:
    outcome = await _answered(Answer.of(503, f"proxy: no route to /bot{TOKEN}/sendMessage"))
    assert outcome.response == "proxy: no route to /bot[secret]/sendMessage"


async def test_the_default_chat_is_filled_in() -> None:
    draft = Draft(None, "t", "m", None, {})
    async with TelegramRig.open() as rig:
        (problem,) = rig.channel.check(draft)
    async with TelegramRig.open(TELEGRAM_CHAT_ID="@allim_ops") as rig:
        assert isinstance(rig.channel, FillsIn)
        assert rig.channel.fill_in(draft).recipient == "@allim_ops"
        assert rig.channel.fill_in(replace(draft, recipient="7")).recipient == "7"
    assert (problem.place, problem.code) == ("/recipient", "missing")


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ({"text": 7}, "/payload/text"),
        ({"text": "x" * 4097}, "/payload/text"),
        ({"text": "x", "parse_mode": "BBCode"}, "/payload/parse_mode"),
        ({"parse_mode": "HTML"}, "/payload/parse_mode"),
        ({"message_thread_id": True}, "/payload/message_thread_id"),
        ({"disable_notification": "yes"}, "/payload/disable_notification"),
        ({"reply_markup": []}, "/payload/reply_markup"),
    ],
)
async def test_what_telegram_would_not_take_is_named(payload: dict[str, Any], place: str) -> None:
    async with TelegramRig.open() as rig:
        (problem,) = rig.channel.check(Draft("7", "t", "m", None, payload))
        (missing,) = rig.channel.check(Draft("7", None, "", None, {}))
    assert problem.place == place
    assert (missing.place, missing.code) == ("/message", "missing")


async def test_diagnose_asks_who_the_bot_is() -> None:
    async with TelegramRig.open() as rig:
        rig.sink.answer(Answer.of(200, '{"ok": true, "result": {"id": 1}}'))
        assert await rig.channel.diagnose() is None
        assert rig.sink.requests[0].path == f"/bot{TOKEN}/getMe"
        rig.sink.answer(refused(401, "Unauthorized"))
        assert await rig.channel.diagnose() == "TELEGRAM_BOT_TOKEN is refused: answered 401"
        rig.sink.answer(Answer.of(200, "<html>"))
        assert await rig.channel.diagnose() == "answered 200, not as the Bot API does"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TELEGRAM_BOT_TOKEN", "AAs3cret"),
        ("TELEGRAM_CHAT_ID", "ops s3cret"),
        ("TELEGRAM_API_URL", "s3cret.example"),
    ],
)
def test_a_wrong_setting_is_named_but_not_shown(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as caught:
        Environment({name: value}).read(telegram.TelegramSettings)
    assert "s3cret" not in str(caught.value)


async def test_without_a_token_success_says_that_nothing_was_called() -> None:
    environment = Environment({})
    channel = telegram.make(environment, make_services(make_http(environment)))
    assert channel.configured().mode == "not_configured"
    assert await channel.diagnose() is None
    outcome = await send_one(channel, a_message("7"))
    assert (outcome.kind, outcome.code) == (OutcomeKind.DELIVERED, "not_configured")
