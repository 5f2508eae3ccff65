"""KAKAO on a local server that stands in for an operator's gateway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from allim.base.errors import ConfigurationError, InvalidRequest
from allim.base.settings import Environment
from allim.channels import kakao
from allim.channels.channel import Channel, ChannelServices, Draft
from allim.channels.registry import make_channels, make_http, make_services
from allim.hub.model import NotificationRequest
from allim.hub.resolution import resolve
from allim.relay.outcomes import OutcomeKind
from allim.testing.channels import (
    NOTIFICATION,
    ChannelConformance,
    ChannelRig,
    HttpRig,
    a_message,
    send_one,
)
from allim.testing.http import Answer, Request

PATH = "/hooks/s3cretGATEWAY"


class KakaoRig(HttpRig):
    recipient = "ops"
    secrets = ("s3cretGATEWAY",)

    def settings(self, url: str) -> Mapping[str, str]:
        return {"KAKAO_WEBHOOK_URL": url + PATH, "KAKAO_TIMEOUT_SECONDS": "20"}

    def make(self, environment: Environment, services: ChannelServices) -> Channel:
        return kakao.make(environment, services)

    def text_of(self, request: Request) -> str:
        return str(request.json["message"])


class TestConformance(ChannelConformance):
    def rig(self) -> AbstractAsyncContextManager[ChannelRig]:
        return KakaoRig.open(KAKAO_TIMEOUT_SECONDS="2")


async def test_a_notice_has_template_recipient_and_variables() -> None:
    data = {"severity": "high", "course_id": 447, "paid": True, "list": [1], "none": None}
    message = a_message(
        "ops",
        template_code="KVCA_ALERT",
        data=data,
        payload={"variables": {"title": "다른 제목", "link": "https://x.example"}},
    )
    async with KakaoRig.open() as rig:
        await send_one(rig.channel, message)
        (request,) = rig.sink.requests
    said = request.json
    assert (request.path, said["template_code"], said["recipient"]) == (PATH, "KVCA_ALERT", "ops")
    assert said["variables"] == {
        "severity": "high",
        "course_id": "447",
        "paid": "true",
        "none": "",
        "type": "PAYMENT_FAILED",
        "title": "다른 제목",
        "message": "카드 승인이 거절되었습니다",
        "link": "https://x.example",
    }
    assert said["message"] == "카드 승인이 거절되었습니다"
    assert said["dedupe_key"] == f"{NOTIFICATION}/4711"
    assert request.headers["idempotency-key"] == said["dedupe_key"]


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (Answer.of(200, "ok"), OutcomeKind.DELIVERED, None),
        (Answer.of(202, '{"ok": true}'), OutcomeKind.DELIVERED, None),
        (Answer.of(204), OutcomeKind.DELIVERED, None),
        (Answer.of(200, '{"ok": false, "error": "x"}'), OutcomeKind.RETRY, "not_ok"),
        (Answer.of(200, '{"ok": false, "retry": false}'), OutcomeKind.REFUSED, "not_ok"),
        (Answer.of(429, headers={"Retry-After": "7"}), OutcomeKind.RETRY, "rate_limited"),
        (Answer.of(500), OutcomeKind.RETRY, "http_500"),
        (Answer.of(401), OutcomeKind.RETRY, "http_401"),
        (Answer.of(400), OutcomeKind.REFUSED, "http_400"),
        (Answer.of(403), OutcomeKind.REFUSED, "http_403"),
        (Answer.of(404), OutcomeKind.REFUSED, "http_404"),
        (Answer.of(302, headers={"Location": "/else"}), OutcomeKind.REFUSED, "http_302"),
        (Answer.cut(), OutcomeKind.RETRY, "connection_lost"),
    ],
)
async def test_what_answers_mean(answer: Answer, kind: OutcomeKind, code: str | None) -> None:
    async with KakaoRig.open() as rig:
        outcome = await rig.send(answer)
        assert len(rig.sink.requests) == 1
    assert (outcome.kind, outcome.code) == (kind, code)


async def test_without_a_gateway_success_says_that_nothing_was_called() -> None:
    environment = Environment({"KAKAO_WEBHOOK_URL": ""})
    channel = kakao.make(environment, make_services(make_http(environment)))
    assert channel.configured().mode == "not_configured"
    outcome = await send_one(channel, a_message(None))
    assert (outcome.kind, outcome.code) == (OutcomeKind.DELIVERED, "not_configured")


def test_what_is_no_url_is_refused_at_the_start() -> None:
    environment = Environment({"KAKAO_WEBHOOK_URL": "gateway.example/s3cret"})
    with pytest.raises(ConfigurationError, match="KAKAO_WEBHOOK_URL") as raised:
        kakao.make(environment, make_services(make_http(environment)))
    assert "s3cret" not in str(raised.value)


def _resolved(*deliveries: dict[str, Any], **settings: str) -> Sequence[dict[str, Any]]:
    environment = Environment(settings)
    channels = make_channels(environment, make_services(make_http(environment)))
    request = NotificationRequest.model_validate(
        {"source": "s", "type": "T", "message": "m", "deliveries": list(deliveries)}
    )
    return resolve(request, channels)


def test_template_and_recipient_are_filled_in_when_a_notice_is_made() -> None:
    (root,) = _resolved({"channel": "KAKAO"})
    assert (root["recipient"], root["template_code"]) == ("ops", "KVCA_ALERT")

    (sheet,) = _resolved(
        {"channel": "SHEET", "row_key": "A", "then": [{"channel": "KAKAO"}]},
        KAKAO_TEMPLATE_CODE="OTHER",
        KAKAO_DEFAULT_RECIPIENT="night-shift",
    )
    (child,) = sheet["then"]
    assert "recipient" not in sheet
    assert "row_key" not in child
    assert (child["recipient"], child["template_code"]) == ("night-shift", "OTHER")


def test_what_a_notice_names_itself_stays_and_goes_on_to_what_follows() -> None:
    (root,) = _resolved(
        {
            "channel": "KAKAO",
            "recipient": "lead",
            "template_code": "MINE",
            "fallback": [{"channel": "KAKAO"}],
        }
    )
    (fallback,) = root["fallback"]
    assert (fallback["recipient"], fallback["template_code"]) == ("lead", "MINE")


def test_an_address_of_another_kind_is_not_taken_over() -> None:
    (mail,) = _resolved(
        {
            "channel": "EMAIL",
            "recipient": "kim@example.com",
            "fallback": [{"channel": "KAKAO"}, {"channel": "SHEET"}],
        }
    )
    notice, row = mail["fallback"]
    assert notice["recipient"] == "ops"
    assert "recipient" not in row


def test_variables_that_are_no_object_are_named() -> None:
    with pytest.raises(InvalidRequest) as raised:
        _resolved({"channel": "KAKAO", "payload": {"variables": ["x"]}})
    assert [problem.place for problem in raised.value.problems] == [
        "/deliveries/0/payload/variables"
    ]
    environment = Environment({})
    channel = kakao.make(environment, make_services(make_http(environment)))
    assert channel.check(Draft(None, "t", "m", None, {})) == []
