"""SLACK on a local server that answers as Slack does: conformance, texts, what answers mean."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from structlog.testing import capture_logs

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels import slack
from allim.channels.answers import retry_after
from allim.channels.channel import Channel, ChannelServices, Draft
from allim.channels.hooks import without_secret
from allim.channels.registry import make_http, make_services
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.testing.channels import (
    ChannelConformance,
    ChannelRig,
    HttpRig,
    a_message,
    send_one,
)
from allim.testing.http import Answer, Request, Then

PATH = "/services/T000/B000/s3cretTOKEN"


class SlackRig(HttpRig):
    bad_recipients = ("nobody", "http://169.254.169.254/latest", "https://user:pw@hooks.slack.com/")
    secrets = ("s3cretTOKEN", "0therTOKEN")

    def settings(self, url: str) -> Mapping[str, str]:
        return {
            "SLACK_WEBHOOK_URL": url + PATH,
            "SLACK_WEBHOOKS": f"ops={url}/services/0therTOKEN",
            "SLACK_TIMEOUT_SECONDS": "20",
        }

    def make(self, environment: Environment, services: ChannelServices) -> Channel:
        return slack.make(environment, services)

    def text_of(self, request: Request) -> str:
        return str(request.json["text"])


class TestConformance(ChannelConformance):
    def rig(self) -> AbstractAsyncContextManager[ChannelRig]:
        return SlackRig.open(SLACK_TIMEOUT_SECONDS="2")


async def _answered(answer: Answer, **settings: str) -> Outcome:
    async with SlackRig.open(**settings) as rig:
        return await rig.send(answer)


async def test_the_text_is_a_bold_title_over_the_message() -> None:
    async with SlackRig.open() as rig:
        await send_one(rig.channel, a_message(None, title="A <b>\n& more", message="1 < 2 &amp;"))
        (request,) = rig.sink.requests
    assert request.path == PATH
    assert request.json == {"text": "*A &lt;b&gt; &amp; more*\n1 &lt; 2 &amp;amp;"}


async def test_blocks_are_passed_on_with_a_text_for_notices() -> None:
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "*<https://x.example|go>*"}}]
    async with SlackRig.open() as rig:
        await send_one(rig.channel, a_message(None, payload={"blocks": blocks}))
        (request,) = rig.sink.requests
    assert request.json["blocks"] == blocks
    assert request.json["text"].startswith("*결제 실패*")


async def test_a_name_leads_to_its_webhook() -> None:
    async with SlackRig.open() as rig:
        await send_one(rig.channel, a_message("ops"))
        (request,) = rig.sink.requests
    assert request.path == "/services/0therTOKEN"


async def test_a_callers_url_is_guarded_where_the_operators_is_not() -> None:
    async with SlackRig.open() as rig:
        own = await send_one(rig.channel, a_message(None))
        callers = await send_one(rig.channel, a_message(rig.sink.url + "/else"))
        assert len(rig.sink.requests) == 1
    assert own.kind is OutcomeKind.DELIVERED
    assert (callers.kind, callers.code) == (OutcomeKind.REFUSED, "blocked_address")


async def test_an_unknown_name_is_refused() -> None:
    async with SlackRig.open() as rig:
        outcome = await send_one(rig.channel, a_message("nobody"))
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "unknown_webhook")


async def test_without_a_webhook_success_says_that_nothing_was_called() -> None:
    environment = Environment({})
    channel = slack.make(environment, make_services(make_http(environment)))
    assert channel.configured().mode == "not_configured"
    for recipient in (None, "ops"):
        assert channel.check(Draft(recipient, "t", "m", None, {})) == []
        outcome = await send_one(channel, a_message(recipient))
        assert (outcome.kind, outcome.code) == (OutcomeKind.DELIVERED, "not_configured")


@pytest.mark.parametrize(
    ("status", "word", "gone"),
    [
        (400, "invalid_payload", False),
        (400, "user_not_found", False),
        (403, "action_prohibited", True),
        (403, "invalid_token", True),
        (404, "no_service", True),
        (410, "channel_is_archived", True),
    ],
)
async def test_what_slack_refuses_is_refused_with_its_word(
    status: int, word: str, gone: bool
) -> None:
    with capture_logs() as logs:
        outcome = await _answered(Answer.of(status, word))
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, word)
    assert (outcome.http_status, outcome.disable_target) == (status, gone)
    assert [line["log_level"] for line in logs] == (["error"] if gone else [])


async def test_a_page_instead_of_a_word_gives_the_status() -> None:
    outcome = await _answered(Answer.of(404, "<html>Not found</html>"))
    assert outcome.code == "http_404"


async def test_429_waits_as_long_as_slack_says() -> None:
    outcome = await _answered(Answer.of(429, "rate_limited", {"Retry-After": "30"}))
    assert (outcome.kind, outcome.code) == (OutcomeKind.RETRY, "rate_limited")
    assert outcome.retry_after == 30.0


def test_retry_after_may_be_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    later = format_datetime(now + timedelta(seconds=90), usegmt=True)
    earlier = format_datetime(now - timedelta(seconds=90), usegmt=True)
    assert retry_after({"Retry-After": later}, now) == 90.0
    assert retry_after({"Retry-After": earlier}, now) == 0.0


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e9", "٣", "Mon, 99 Foo 2026 99:99:99 GMT"])
def test_a_retry_after_that_cannot_be_read_is_none(value: str) -> None:
    assert retry_after({"Retry-After": value}) is None


async def test_500_is_tried_again() -> None:
    outcome = await _answered(Answer.of(500, "rollup_error"))
    assert (outcome.kind, outcome.code) == (OutcomeKind.RETRY, "http_500")


@pytest.mark.parametrize("body", ["", "okay", "<html>log in to the wifi</html>"])
async def test_200_without_ok_is_not_slack(body: str) -> None:
    outcome = await _answered(Answer.of(200, body))
    assert (outcome.kind, outcome.code) == (OutcomeKind.RETRY, "bad_answer")
    once = await _answered(Answer.of(200, body), SLACK_AT_MOST_ONCE="true")
    assert once.kind is OutcomeKind.UNKNOWN


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer.hang(), "timeout"),
        (Answer.hang(b"HTTP/1.1 200 OK\r\nContent-Le"), "timeout"),
        (Answer.hang(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"), "bad_answer"),
        (Answer.cut(), "connection_lost"),
        (Answer.cut(b"HTTP/1.1 200 OK\r\nContent-Le"), "connection_lost"),
        (Answer.cut(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no"), "bad_answer"),
        (Answer.cut(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "bad_answer"),
        (Answer.cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n"), "bad_answer"),
    ],
)
async def test_whatever_breaks_on_the_way_is_tried_again(answer: Answer, code: str) -> None:
    patience = "2" if answer.then is Then.HANG else "20"
    outcome = await _answered(answer, SLACK_TIMEOUT_SECONDS=patience)
    assert (outcome.kind, outcome.code) == (OutcomeKind.RETRY, code)


async def test_an_answer_that_echoes_the_webhook_is_not_kept_as_it_is() -> None:
    async with SlackRig.open() as rig:
        outcome = await rig.send(Answer.of(404, f"no such hook {rig.sink.url}{PATH}"))
        later = await rig.send(Answer.of(503, f"down: {rig.sink.url}{PATH}"))
    assert outcome.response == "no such hook [secret]"
    assert later.response == "down: [secret]"


@pytest.mark.parametrize(
    ("url", "said", "kept"),
    [
        ("https://h.kr" + PATH, f"not found: {PATH}", "not found: [secret]"),
        ("https://h.kr" + PATH, "bad hook s3cretTOKEN", "bad hook [secret]"),
        (
            "https://h.kr/go?v=1&sig=s3%2FcretSIG",
            "v=1&amp;sig=s3%2FcretSIG",
            "v=1&amp;sig=[secret]",
        ),
        ("https://h.kr/go?v=1&sig=s3%2FcretSIG", "sig s3/cretSIG", "sig [secret]"),
        ("https://h.kr/", "https://other.kr/ is down", "https://other.kr/ is down"),
        ("123456:AAF-s3cret", "/bot123456:AAF-s3cret/getMe", "/bot[secret]/getMe"),
    ],
)
def test_no_part_of_a_url_that_may_be_a_secret_is_kept(url: str, said: str, kept: str) -> None:
    assert without_secret(said, url) == kept


async def test_the_target_tells_webhooks_apart_without_telling_them() -> None:
    async with SlackRig.open() as rig:
        default = rig.channel.target(a_message(None))
        ops = rig.channel.target(a_message("ops"))
        by_url = rig.channel.target(a_message(rig.sink.url + PATH))
    assert default != ops
    assert default == by_url
    assert default.startswith("127.0.0.1#")
    assert "TOKEN" not in default + ops


async def test_diagnose_tells_a_live_webhook_from_a_dead_one() -> None:
    async with SlackRig.open() as rig:
        rig.sink.answer(Answer.of(400, "no_text"))
        assert await rig.channel.diagnose() is None
        rig.sink.answer(Answer.of(404, "no_service"))
        problem = await rig.channel.diagnose()
    assert problem is not None
    assert "SLACK_WEBHOOK_URL: answered 404 no_service" in problem
    assert "SLACK_WEBHOOKS ops" in problem


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ({"blocks": []}, "/payload/blocks"),
        ({"blocks": "text"}, "/payload/blocks"),
        ({"blocks": [{"type": "divider"}] * 51}, "/payload/blocks"),
        ({"blocks": [{"type": "divider"}, 7]}, "/payload/blocks/1"),
        ({"blocks": [{"type": "header", "text": {"text": "x" * 151}}]}, "/payload/blocks/0/text"),
        ({"blocks": [{"type": "section", "text": {"text": "x" * 3001}}]}, "/payload/blocks/0/text"),
        ({"blocks": [{"type": "section", "fields": [{}] * 11}]}, "/payload/blocks/0/fields"),
    ],
)
async def test_blocks_beyond_slacks_limits_are_named(
    payload: dict[str, object], place: str
) -> None:
    async with SlackRig.open() as rig:
        (problem,) = rig.channel.check(Draft(None, "t", "m", None, payload))
    assert problem.place == place


async def test_nothing_to_say_is_a_problem() -> None:
    async with SlackRig.open() as rig:
        (problem,) = rig.channel.check(Draft(None, None, "", None, {}))
    assert (problem.place, problem.code) == ("/message", "missing")


@pytest.mark.parametrize(
    "settings",
    [
        {"SLACK_WEBHOOK_URL": "hooks.slack.com/services/s3cretTOKEN"},
        {"SLACK_WEBHOOKS": "https://hooks.slack.com/services/s3cretTOKEN"},
        {"SLACK_WEBHOOKS": "ops=s3cretTOKEN"},
        {"SLACK_WEBHOOKS": "https://x.example/?a=s3cretTOKEN"},
    ],
)
def test_a_wrong_setting_is_named_but_not_shown(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="SLACK_WEBHOOK") as caught:
        Environment(settings).read(slack.SlackSettings)
    assert "s3cretTOKEN" not in str(caught.value)
