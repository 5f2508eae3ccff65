"""WEBHOOK on a real local server: the conformance suite, the protocol, the signature."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import pytest
from structlog.testing import capture_logs

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels import webhook
from allim.channels.channel import Channel, ChannelServices, Draft, Message
from allim.channels.registry import make_services
from allim.channels.signing import BadSecret, secret_key
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.testing.channels import (
    ChannelConformance,
    ChannelRig,
    HttpRig,
    a_message,
    send_one,
)
from allim.testing.http import Answer, HttpSink, Request

OLD = "whsec_" + base64.b64encode(b"old secret of 24 bytes..").decode()
NEW = "whsec_" + base64.b64encode(b"new secret of thirty-two bytes..").decode()
LOCAL = {"ALLIM_SSRF_ALLOW": "127.0.0.0/8", "WEBHOOK_TIMEOUT_SECONDS": "20"}


class WebhookRig(HttpRig):
    bad_recipients = (None, "", "kim@example.com", "ftp://example.com/", "http://10.0.0.1/hook")
    secrets = (NEW, NEW.removeprefix("whsec_"), "s3cret-path")

    def settings(self, url: str) -> Mapping[str, str]:
        self.recipient = f"{url}/s3cret-path"
        return {**LOCAL, "WEBHOOK_SECRETS": NEW}

    def make(self, environment: Environment, services: ChannelServices) -> Channel:
        return webhook.make(environment, services)

    def text_of(self, request: Request) -> str:
        return str(request.json["message"])


class TestConformance(ChannelConformance):
    def rig(self) -> AbstractAsyncContextManager[ChannelRig]:
        return WebhookRig.open(WEBHOOK_TIMEOUT_SECONDS="2")


async def _answered(answer: Answer, **parts: object) -> Outcome:
    async with WebhookRig.open() as rig:
        return await rig.send(answer, **parts)


async def test_the_body_tells_the_notification() -> None:
    async with WebhookRig.open() as rig:
        await send_one(rig.channel, a_message(rig.recipient, payload={"extra": [1, "이"]}))
        (request,) = rig.sink.requests
    assert request.method == "POST"
    assert request.path == "/s3cret-path"
    assert request.headers["content-type"] == "application/json"
    assert request.json == {
        "id": "0190163d-8694-739b-aea5-966c26f8ad91",
        "delivery_id": 4711,
        "type": "PAYMENT_FAILED",
        "source": "payment-service",
        "title": "결제 실패",
        "message": "카드 승인이 거절되었습니다",
        "data": {"order_id": "A-1024"},
        "created_at": "2026-01-02T03:04:05Z",
        "payload": {"extra": [1, "이"]},
    }


async def test_a_body_of_the_callers_own_replaces_ours() -> None:
    async with WebhookRig.open() as rig:
        await send_one(rig.channel, a_message(rig.recipient, payload={"body": {"content": "hi"}}))
        (request,) = rig.sink.requests
    assert request.json == {"content": "hi"}


def _verified(request: Request, secret: str, signature: str) -> bool:
    """Standard Webhooks, written down once more from its text."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join(
        (
            request.headers["webhook-id"].encode(),
            request.headers["webhook-timestamp"].encode(),
            request.body,
        )
    )
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return hmac.compare_digest("v1," + expected, signature)


async def test_the_signature_can_be_verified() -> None:
    async with WebhookRig.open() as rig:
        await send_one(rig.channel, a_message(rig.recipient))
        (request,) = rig.sink.requests
    assert request.headers["webhook-id"] == "msg_0190163d-8694-739b-aea5-966c26f8ad91_4711"
    assert _verified(request, NEW, request.headers["webhook-signature"])


async def test_while_a_secret_rotates_both_sign() -> None:
    async with WebhookRig.open(WEBHOOK_SECRETS=f"{NEW} {OLD}") as rig:
        await send_one(rig.channel, a_message(rig.recipient))
        (request,) = rig.sink.requests
    newer, older = request.headers["webhook-signature"].split(" ")
    assert _verified(request, NEW, newer)
    assert _verified(request, OLD, older)


async def test_a_targets_own_secret_wins_over_the_setting() -> None:
    async def secrets_for(tenant_id: int | None, url: str) -> Sequence[str]:
        return [OLD] if tenant_id == 7 and url.endswith("/s3cret-path") else []

    async with WebhookRig.open() as rig:
        services = make_services(rig.http, secrets_for=secrets_for)
        channel = webhook.make(rig.environment, services)
        await send_one(channel, a_message(rig.recipient, tenant_id=7))
        await send_one(channel, a_message(rig.recipient, tenant_id=8))
        own, other = rig.sink.requests
    assert _verified(own, OLD, own.headers["webhook-signature"])
    assert _verified(other, NEW, other.headers["webhook-signature"])


async def test_without_a_secret_nothing_is_signed_and_the_channel_says_so() -> None:
    async with WebhookRig.open(WEBHOOK_SECRETS="") as rig:
        await send_one(rig.channel, a_message(rig.recipient))
        (request,) = rig.sink.requests
        assert "not signed" in rig.channel.configured().detail
    assert "webhook-signature" not in request.headers
    assert request.headers["webhook-id"]


async def test_every_attempt_has_the_same_id() -> None:
    async with WebhookRig.open() as rig:
        rig.sink.answer(Answer.of(500), Answer.of(200))
        await send_one(rig.channel, a_message(rig.recipient))
        await send_one(rig.channel, a_message(rig.recipient))
        first, second = rig.sink.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


async def test_a_bad_secret_of_a_target_waits_for_an_operator() -> None:
    async def secrets_for(tenant_id: int | None, url: str) -> Sequence[str]:
        return ["whsec_short"]

    async with WebhookRig.open() as rig:
        channel = webhook.make(rig.environment, make_services(rig.http, secrets_for=secrets_for))
        with capture_logs() as logs:
            outcome = await send_one(channel, a_message(rig.recipient))
    assert (outcome.kind, outcome.code) == (OutcomeKind.FAULT, "bad_webhook_secret")
    assert [line["log_level"] for line in logs] == ["error"]
    assert "short" not in str(logs)


@pytest.mark.parametrize("secret", ["whsec_!!!", "whsec_c2hvcnQ=", "whsec_" + "A" * 100])
def test_a_secret_has_24_to_64_bytes_of_base64(secret: str) -> None:
    with pytest.raises(BadSecret):
        secret_key(secret)
    with pytest.raises(ConfigurationError, match="WEBHOOK_SECRETS") as caught:
        Environment({"WEBHOOK_SECRETS": secret}).read(webhook.WebhookSettings)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_2xx_is_success(status: int) -> None:
    outcome = await _answered(Answer.of(status))
    assert (outcome.kind, outcome.http_status) == (OutcomeKind.DELIVERED, status)


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 599])
async def test_what_may_work_later_is_tried_again(status: int) -> None:
    outcome = await _answered(Answer.of(status, "no"))
    assert (outcome.kind, outcome.code) == (OutcomeKind.RETRY, f"http_{status}")
    assert outcome.response == "no"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_other_4xx_is_refused(status: int) -> None:
    outcome = await _answered(Answer.of(status, "no"))
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, f"http_{status}")
    assert not outcome.disable_target


async def test_retry_all_tries_them_again_too() -> None:
    outcome = await _answered(Answer.of(404), payload={"retry_all": True})
    assert (outcome.kind, outcome.code) == (OutcomeKind.RETRY, "http_404")


@pytest.mark.parametrize("retry_all", [True, False])
async def test_410_says_that_the_endpoint_is_gone(retry_all: bool) -> None:
    with capture_logs() as logs:
        outcome = await _answered(Answer.of(410), payload={"retry_all": retry_all})
    assert (outcome.kind, outcome.disable_target) == (OutcomeKind.REFUSED, True)
    assert [line["event"] for line in logs] == ["target_gone"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_refused_and_not_followed(status: int) -> None:
    async with HttpSink() as elsewhere:
        outcome = await _answered(Answer.of(status, headers={"Location": elsewhere.url}))
        assert elsewhere.requests == []
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, f"http_{status}")


async def test_retry_after_is_honoured() -> None:
    outcome = await _answered(Answer.of(429, headers={"Retry-After": "37"}))
    assert (outcome.kind, outcome.code) == (OutcomeKind.RETRY, "rate_limited")
    assert outcome.retry_after == 37.0


async def test_the_trace_goes_with_it() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with WebhookRig.open() as rig:
        await send_one(rig.channel, a_message(rig.recipient, traceparent=trace))
        (request,) = rig.sink.requests
    assert request.headers["traceparent"] == trace


async def test_custom_headers_are_sent() -> None:
    headers = {"Authorization": "Bearer abc", "X-Team": "ops"}
    async with WebhookRig.open() as rig:
        await send_one(rig.channel, a_message(rig.recipient, payload={"headers": headers}))
        (request,) = rig.sink.requests
    assert request.headers["authorization"] == "Bearer abc"
    assert request.headers["x-team"] == "ops"
    assert "payload" not in request.json


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Content-Length": "0"},
        {"Transfer-Encoding": "chunked"},
        {"webhook-id": "x"},
        {"Webhook-Signature": "x"},
        {"X-A": "one\r\nX-B: two"},
        {"X-A": "비밀"},
        {"X A": "1"},
        {"X-A": 7},
        {"X-A": "a" * 2000},
        {f"X-{number}": "1" for number in range(30)},
        "X-A: 1",
    ],
)
async def test_headers_that_would_break_the_request_are_named_and_never_sent(
    headers: object,
) -> None:
    async with WebhookRig.open() as rig:
        draft = Draft(rig.recipient, "t", "m", None, {"headers": headers})
        problems = rig.channel.check(draft)
        assert problems
        assert all(problem.place.startswith("/payload/headers") for problem in problems)
        outcome = await send_one(
            rig.channel, a_message(rig.recipient, payload={"headers": headers})
        )
        (request,) = rig.sink.requests
    assert outcome.kind is OutcomeKind.DELIVERED
    assert "x-a" not in request.headers
    assert request.headers["host"].startswith("127.0.0.1:")


async def test_at_most_once_leaves_what_may_have_arrived_to_an_operator() -> None:
    async with WebhookRig.open(WEBHOOK_AT_MOST_ONCE="true") as rig:
        rig.sink.answer(Answer.cut())
        lost = await send_one(rig.channel, a_message(rig.recipient))
        await rig.sink.stop()
        refused = await send_one(rig.channel, a_message(rig.recipient))
    assert (lost.kind, lost.code) == (OutcomeKind.UNKNOWN, "connection_lost")
    assert (refused.kind, refused.code) == (OutcomeKind.RETRY, "connect_failed")


async def test_a_2xx_whose_body_breaks_off_is_a_success() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    outcome = await _answered(Answer.cut(head))
    assert (outcome.kind, outcome.response) == (OutcomeKind.DELIVERED, "half")


async def test_the_target_hides_the_path() -> None:
    async with WebhookRig.open() as rig:
        assert rig.channel.target(_to("https://h.example/t0ken?x=1")) == "https://h.example:443"
        assert rig.channel.target(_to("not a url at all")) == "invalid"


def _to(url: str) -> Message:
    return a_message(url)
