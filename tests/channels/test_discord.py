"""DISCORD on a local server that answers as Discord does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from structlog.testing import capture_logs

from allim.base.settings import Environment
from allim.channels import discord
from allim.channels.channel import Channel, ChannelServices, Draft
from allim.channels.pauses import REMEMBERED, Pauses
from allim.channels.registry import make_http, make_services
from allim.channels.shortening import utf16_length
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.testing.channels import ChannelConformance, ChannelRig, HttpRig, a_message, send_one
from allim.testing.http import Answer, Request

PATH = "/api/webhooks/1175000000000000001/s3cretTOKEN"
MESSAGE = {"type": 0, "content": "…" * 2000, "embeds": [{"description": "x" * 40_000}]}
TAKEN = Answer.of(200, json.dumps({**MESSAGE, "id": "1175000000000000042"}))


def said(status: int, headers: Mapping[str, str] | None = None, **body: Any) -> Answer:
    return Answer.of(status, json.dumps(body), headers)


class DiscordRig(HttpRig):
    well = TAKEN
    bad_recipients = ("nobody", "http://169.254.169.254/latest", "https://user:pw@discord.com/")
    secrets = ("s3cretTOKEN", "0therTOKEN")

    def settings(self, url: str) -> Mapping[str, str]:
        return {
            "DISCORD_WEBHOOK_URL": url + PATH,
            "DISCORD_WEBHOOKS": f"ops={url}/api/webhooks/2/0therTOKEN",
            "DISCORD_TIMEOUT_SECONDS": "20",
        }

    def make(self, environment: Environment, services: ChannelServices) -> Channel:
        return discord.make(environment, services)

    def text_of(self, request: Request) -> str:
        return re.sub(r"\\([^0-9A-Za-z\s])", r"\1", request.json["content"])


class TestConformance(ChannelConformance):
    def rig(self) -> AbstractAsyncContextManager[ChannelRig]:
        return DiscordRig.open(DISCORD_TIMEOUT_SECONDS="2")


async def _answered(answer: Answer, **settings: str) -> Outcome:
    async with DiscordRig.open(**settings) as rig:
        return await rig.send(answer)


async def test_a_message_is_plain_text_that_pings_nobody() -> None:
    message = a_message(
        None,
        title="A *b*\n_c_",
        message="# not a heading\n@everyone [x](y) see https://x.example/a_b_c\n2026-11-21 - ok",
    )
    async with DiscordRig.open() as rig:
        await send_one(rig.channel, message)
        (request,) = rig.sink.requests
    assert request.path == f"{PATH}?wait=true"
    assert request.json == {
        "content": (
            "**A \\*b\\* \\_c\\_**\n\\# not a heading\n"
            "@everyone \\[x](y) see https://x.example/a_b_c\n2026-11-21 - ok"
        ),
        "allowed_mentions": {"parse": []},
    }


async def test_the_id_of_the_message_is_kept_however_long_the_answer() -> None:
    assert len(TAKEN.wire) > 40_000
    outcome = await _answered(TAKEN)
    assert (outcome.kind, outcome.provider_message_id) == (
        OutcomeKind.DELIVERED,
        "1175000000000000042",
    )


async def test_embeds_and_content_of_the_callers_own_replace_the_text() -> None:
    payload = {
        "embeds": [{"title": "Down", "color": 15158332}],
        "username": "Allim",
        "thread_id": "77",
        "allowed_mentions": {"users": ["42"]},
    }
    async with DiscordRig.open() as rig:
        await rig.send(payload=payload)
        await rig.send(payload={"content": "**own** <@42>"})
        embeds, own = rig.sink.requests
    assert embeds.path == f"{PATH}?wait=true&thread_id=77"
    assert embeds.json == {
        "embeds": payload["embeds"],
        "username": "Allim",
        "allowed_mentions": {"users": ["42"]},
    }
    assert own.json["content"] == "**own** <@42>"


@pytest.mark.parametrize("text", ["😀" * 5000, "*" * 5000, "\\" * 5001, "x" * 1999 + "**"])
async def test_a_long_message_is_cut_to_what_discord_takes(text: str) -> None:
    async with DiscordRig.open() as rig:
        await rig.send(title="t" * 900, message=text)
        await rig.send(title=None, message=text)
        for request in rig.sink.requests:
            content = request.json["content"]
            assert 1990 <= utf16_length(content) <= 2000
            assert content.endswith("…")
            assert not re.search(r"(?<!\\)(\\\\)*\\…$", content)


async def test_a_name_and_a_url_lead_to_their_webhooks() -> None:
    async with DiscordRig.open(ALLIM_SSRF_ALLOW="127.0.0.0/8") as rig:
        await rig.send(recipient="ops")
        await rig.send(recipient=f"{rig.sink.url}/api/webhooks/3/x?thread_id=5")
        named, by_url = rig.sink.requests
    assert named.path == "/api/webhooks/2/0therTOKEN?wait=true"
    assert by_url.path == "/api/webhooks/3/x?thread_id=5&wait=true"


@pytest.mark.parametrize(
    ("answer", "kind", "code", "gone"),
    [
        (said(400, message="Cannot send an empty message", code=50006), "REFUSED", "http_400", 0),
        (said(401, message="Invalid Webhook Token", code=50027), "REFUSED", "http_401", 1),
        (said(403, message="Missing Access", code=50001), "REFUSED", "http_403", 0),
        (said(404, message="Unknown Webhook", code=10015), "REFUSED", "http_404", 1),
        (said(404, message="Unknown Channel", code=10003), "REFUSED", "http_404", 0),
        (said(404, message="404: Not Found", code=0), "REFUSED", "http_404", 1),
        (Answer.of(302, headers={"Location": "/"}), "REFUSED", "http_302", 0),
        (Answer.of(502, "<html>"), "RETRY", "http_502", 0),
        (Answer.of(200, "<html>log in to the wifi</html>"), "RETRY", "bad_answer", 0),
        (Answer.of(204), "DELIVERED", None, 0),
        (Answer.cut(), "RETRY", "connection_lost", 0),
    ],
)
async def test_what_answers_mean(answer: Answer, kind: str, code: str | None, gone: int) -> None:
    with capture_logs() as logs:
        outcome = await _answered(answer)
    assert (outcome.kind, outcome.code) == (kind, code)
    assert outcome.disable_target is bool(gone)
    assert [line["event"] for line in logs] == ["target_gone"] * gone


async def test_a_refusal_says_why() -> None:
    outcome = await _answered(said(404, message="Unknown Webhook", code=10015))
    assert outcome.detail == "Discord answered 404 Unknown Webhook (10015)"


async def test_nothing_is_sent_twice_where_it_must_not_be() -> None:
    outcome = await _answered(Answer.of(200, "{}"), DISCORD_AT_MOST_ONCE="true")
    assert outcome.kind is OutcomeKind.UNKNOWN


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({}, {"retry_after": 64.57, "global": False}, 64.57),
        ({"Retry-After": "65"}, {"retry_after": 64.57}, 64.57),
        # Versions of the API before 8 give milliseconds.
        ({"Retry-After": "2"}, {"retry_after": 1337}, 2.0),
        ({"X-RateLimit-Reset-After": "1.5"}, {}, 1.5),
        ({}, {"retry_after": 10**8}, 3600.0),
        ({}, {"retry_after": "soon"}, None),
    ],
)
async def test_429_waits_as_long_as_discord_says(
    headers: dict[str, str], body: dict[str, Any], seconds: float | None
) -> None:
    outcome = await _answered(said(429, headers, message="You are being rate limited.", **body))
    assert (outcome.kind, outcome.code) == (OutcomeKind.RETRY, "rate_limited")
    assert outcome.retry_after == seconds


async def test_a_429_for_everything_pauses_every_webhook() -> None:
    limited = said(429, {"Retry-After": "300", "X-RateLimit-Global": "true"})
    async with DiscordRig.open() as rig:
        await rig.send(limited)
        other = await rig.send(TAKEN, recipient="ops")
        assert len(rig.sink.requests) == 1
    assert other.kind is OutcomeKind.SNOOZED


async def test_a_callers_server_pauses_only_itself() -> None:
    limited = said(429, {"Retry-After": "300", "X-RateLimit-Global": "true"})
    async with DiscordRig.open(ALLIM_SSRF_ALLOW="127.0.0.0/8") as rig:
        elsewhere = rig.sink.url.replace("127.0.0.1", "localhost")
        await rig.send(limited, recipient=f"{elsewhere}/x")
        own = await rig.send(TAKEN)
    assert own.kind is OutcomeKind.DELIVERED


def test_pauses_are_over_when_they_are_and_never_too_many() -> None:
    now = 100.0
    pauses = Pauses(now=lambda: now)
    pauses.pause("a", 5.0)
    pauses.pause("a", 3.0)
    assert (pauses.left("a"), pauses.left("b"), pauses.left("b", "a")) == (5.0, 0.0, 5.0)
    now += 6
    assert pauses.left("a") == 0.0
    for number in range(2 * REMEMBERED):
        pauses.pause(str(number), 60.0)
    assert sum(pauses.left(str(number)) > 0 for number in range(2 * REMEMBERED)) <= REMEMBERED


async def test_a_window_that_is_spent_is_waited_for() -> None:
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset-After": "300.25"}
    async with DiscordRig.open() as rig:
        taken = await rig.send(said(200, headers, id="1"))
        waits = await rig.send(TAKEN)
        other = await rig.send(recipient="ops")
        assert len(rig.sink.requests) == 2
    assert taken.kind is OutcomeKind.DELIVERED
    assert (waits.kind, waits.code) == (OutcomeKind.SNOOZED, "target_paused")
    assert 0 < (waits.retry_after or 0) <= 300.25
    assert other.kind is OutcomeKind.DELIVERED


async def test_diagnose_posts_nothing() -> None:
    async with DiscordRig.open() as rig:
        rig.sink.answer(said(200, name="ops", token="s3cretTOKEN"))
        assert await rig.channel.diagnose() is None
        assert {request.method for request in rig.sink.requests} == {"GET"}
        rig.sink.answer(said(404, message="Unknown Webhook", code=10015))
        problem = await rig.channel.diagnose()
    assert problem is not None
    assert "DISCORD_WEBHOOK_URL: answered 404 Unknown Webhook (10015)" in problem
    assert "DISCORD_WEBHOOKS ops" in problem


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ({"content": 7}, "/payload/content"),
        ({"content": "x" * 2001}, "/payload/content"),
        ({"embeds": []}, "/payload/embeds"),
        ({"embeds": [{}] * 11}, "/payload/embeds"),
        ({"embeds": [{}, 7]}, "/payload/embeds/1"),
        ({"embeds": [{"description": "x" * 4097}]}, "/payload/embeds/0/description"),
        ({"embeds": [{"fields": [{}] * 26}]}, "/payload/embeds/0/fields"),
        ({"thread_id": 77}, "/payload/thread_id"),
    ],
)
async def test_what_discord_would_not_take_is_named(payload: dict[str, Any], place: str) -> None:
    async with DiscordRig.open() as rig:
        (problem,) = rig.channel.check(Draft(None, "t", "m", None, payload))
        (missing,) = rig.channel.check(Draft(None, None, "", None, {}))
    assert problem.place == place
    assert (missing.place, missing.code) == ("/message", "missing")


async def test_without_a_webhook_success_says_that_nothing_was_called() -> None:
    environment = Environment({})
    channel = discord.make(environment, make_services(make_http(environment)))
    assert channel.configured().mode == "not_configured"
    assert "DISCORD_WEBHOOK_URL" in channel.configured().detail
    outcome = await send_one(channel, a_message(None))
    assert (outcome.kind, outcome.code) == (OutcomeKind.DELIVERED, "not_configured")
