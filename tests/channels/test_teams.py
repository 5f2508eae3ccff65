"""TEAMS on a local server that answers as workflows and the older connectors do."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from structlog.testing import capture_logs

from allim.base.settings import Environment
from allim.channels import teams
from allim.channels.channel import Channel, ChannelServices, Draft
from allim.relay.outcomes import OutcomeKind
from allim.testing.channels import ChannelConformance, ChannelRig, HttpRig
from allim.testing.http import Answer, Request

PATH = "/workflows/0a1b/triggers/manual/paths/invoke?api-version=1&sp=/triggers&sig=s3cretSIG"
CONNECTOR_FAILED = (
    "Webhook message delivery failed with error: Microsoft Teams endpoint returned"
    " HTTP error {} with ContextId tcid=0,server=X"
)


def lines_of(request: Request) -> list[str]:
    """What a reader of the card sees, line by line."""
    (attachment,) = request.json["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    return ["".join(run["text"] for run in block["inlines"]) for block in card["body"]]


class TeamsRig(HttpRig):
    well = Answer.of(202)
    bad_recipients = (
        "nobody",
        "http://169.254.169.254/latest",
        "https://user:pw@x.logic.azure.com/",
    )
    secrets = ("s3cretSIG", "0therSIG")

    def settings(self, url: str) -> Mapping[str, str]:
        return {
            "TEAMS_WEBHOOK_URL": url + PATH,
            "TEAMS_WEBHOOKS": f"ops={url}/workflows/2?sig=0therSIG",
            "TEAMS_TIMEOUT_SECONDS": "20",
        }

    def make(self, environment: Environment, services: ChannelServices) -> Channel:
        return teams.make(environment, services)

    def text_of(self, request: Request) -> str:
        return "\n".join(lines_of(request))


class TestConformance(ChannelConformance):
    def rig(self) -> AbstractAsyncContextManager[ChannelRig]:
        return TeamsRig.open(TEAMS_TIMEOUT_SECONDS="2")


async def test_a_card_is_plain_text_line_by_line() -> None:
    async with TeamsRig.open() as rig:
        await rig.send(title="A *b*\nc", message="[x](https://evil.example)\n\n- two")
        (request,) = rig.sink.requests
    assert request.path == PATH
    assert request.json["type"] == "message"
    assert request.json["summary"] == "A *b* c"
    assert lines_of(request) == ["A *b* c", "[x](https://evil.example)", " ", "- two"]


async def test_a_card_of_the_callers_own_is_passed_on() -> None:
    card = {"type": "AdaptiveCard", "version": "1.5", "body": [{"type": "TextBlock", "text": "*"}]}
    async with TeamsRig.open() as rig:
        await rig.send(payload={"card": card}, recipient="ops")
        (request,) = rig.sink.requests
    assert request.path == "/workflows/2?sig=0therSIG"
    assert request.json["attachments"][0]["content"] == card


@pytest.mark.parametrize("text", ["가" * 50_000, 'x"\\\n' * 20_000, "\n" * 50_000, "😀" * 30_000])
async def test_a_long_message_is_cut_to_what_teams_takes(text: str) -> None:
    async with TeamsRig.open() as rig:
        outcome = await rig.send(title="제목" * 400, message=text)
        (request,) = rig.sink.requests
    assert outcome.kind is OutcomeKind.DELIVERED
    assert 27_000 < len(request.body) <= 28 * 1024
    assert lines_of(request)[-1].endswith("…")


@pytest.mark.parametrize(
    ("answer", "kind", "code", "gone"),
    [
        (Answer.of(202), "DELIVERED", None, 0),
        (Answer.of(200, "1"), "DELIVERED", None, 0),
        (Answer.of(200, ""), "DELIVERED", None, 0),
        (Answer.of(200, '{"posted": true, "errors": []}'), "DELIVERED", None, 0),
        (Answer.of(200, CONNECTOR_FAILED.format(429)), "RETRY", "rate_limited", 0),
        (Answer.of(200, CONNECTOR_FAILED.format(500)), "RETRY", "http_500", 0),
        (Answer.of(200, CONNECTOR_FAILED.format(413)), "REFUSED", "http_413", 0),
        (Answer.of(200, CONNECTOR_FAILED.format(404)), "REFUSED", "http_404", 0),
        (Answer.of(200, CONNECTOR_FAILED.format(200)), "RETRY", "bad_answer", 0),
        (
            Answer.of(200, "System.Net.Http.HttpRequestException: Error while"),
            "RETRY",
            "bad_answer",
            0,
        ),
        (Answer.of(200, "<html>log in to the wifi</html>"), "RETRY", "bad_answer", 0),
        (Answer.of(400, "Summary or Text is required."), "REFUSED", "http_400", 0),
        (Answer.of(401, '{"error": {"code": "DirectApiInvalid"}}'), "REFUSED", "http_401", 1),
        (Answer.of(404, '{"error": {"code": "WorkflowNotFound"}}'), "REFUSED", "http_404", 1),
        (Answer.of(410, "gone"), "REFUSED", "http_410", 1),
        (Answer.of(413), "REFUSED", "http_413", 0),
        (Answer.of(429, headers={"Retry-After": "17"}), "RETRY", "rate_limited", 0),
        (Answer.of(503), "RETRY", "http_503", 0),
        (Answer.cut(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nWeb"), "RETRY", "bad_answer", 0),
    ],
)
async def test_what_answers_mean(answer: Answer, kind: str, code: str | None, gone: int) -> None:
    with capture_logs() as logs:
        async with TeamsRig.open() as rig:
            outcome = await rig.send(answer)
    assert (outcome.kind, outcome.code) == (kind, code)
    assert outcome.disable_target is bool(gone)
    assert [line["event"] for line in logs] == ["target_gone"] * gone
    if "WorkflowNotFound" in answer.wire.decode():
        assert outcome.detail == "Teams answered 404 WorkflowNotFound"
    if outcome.code == "rate_limited" and answer.status == 429:
        assert outcome.retry_after == 17.0


async def test_diagnose_posts_nothing() -> None:
    async with TeamsRig.open() as rig:
        rig.sink.answer(Answer.of(405))
        assert await rig.channel.diagnose() is None
        assert {request.method for request in rig.sink.requests} == {"GET"}
        await rig.sink.stop()
        problem = await rig.channel.diagnose()
    assert problem is not None
    assert "TEAMS_WEBHOOK_URL: could not connect" in problem


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"card": 7}, "invalid"),
        ({"card": {"type": "MessageCard"}}, "invalid"),
        ({"card": {"type": "AdaptiveCard", "body": ["x" * 28_700]}}, "too_long"),
    ],
)
async def test_what_teams_would_not_take_is_named(payload: dict[str, Any], code: str) -> None:
    async with TeamsRig.open() as rig:
        (problem,) = rig.channel.check(Draft(None, "t", "m", None, payload))
        (missing,) = rig.channel.check(Draft(None, None, "", None, {}))
    assert (problem.place, problem.code) == ("/payload/card", code)
    assert (missing.place, missing.code) == ("/message", "missing")
