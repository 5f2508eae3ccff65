"""WEBPUSH on a local server that answers as a push service; what it gets is decrypted here."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from structlog.testing import capture_logs
from typer.testing import CliRunner

from allim.base import base64url
from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels import webpush
from allim.channels.channel import Channel, ChannelServices, Draft, FillsIn
from allim.channels.registry import make_http, make_services
from allim.channels.vapid import VapidKey, from_base64
from allim.cli.commands import app
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

pytest.importorskip("pywebpush", reason="the extra webpush is not installed")

KEY = VapidKey.generate()
AUTH = b"sixteen bytes!!!"


class Browser:
    """A subscriber, with the private key that never leaves it."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        self._public = self._private.public_key().public_bytes(
            Encoding.X962, PublicFormat.UncompressedPoint
        )

    def subscription(self, endpoint: str) -> dict[str, Any]:
        keys = {"p256dh": base64url.encoded(self._public), "auth": base64url.encoded(AUTH)}
        return {"endpoint": endpoint, "expirationTime": None, "keys": keys}

    def decrypted(self, body: bytes) -> bytes:
        """RFC 8291 and RFC 8188, written down once more from their texts."""
        salt, record_size, length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
        sender, sealed = body[21 : 21 + length], body[21 + length :]
        assert len(sealed) <= record_size
        theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender)
        shared = self._private.exchange(ec.ECDH(), theirs)
        info = b"WebPush: info\x00" + self._public + sender
        secret = HKDF(hashes.SHA256(), 32, AUTH, info).derive(shared)
        key = HKDF(hashes.SHA256(), 16, salt, b"Content-Encoding: aes128gcm\x00").derive(secret)
        nonce = HKDF(hashes.SHA256(), 12, salt, b"Content-Encoding: nonce\x00").derive(secret)
        opened = AESGCM(key).decrypt(nonce, sealed, None)
        assert opened.rstrip(b"\x00").endswith(b"\x02")
        return opened.rstrip(b"\x00")[:-1]


BROWSER = Browser()


class WebPushRig(HttpRig):
    well = Answer.of(201)
    secrets = ("s3cretENDPOINT", KEY.private_text)
    bad_recipients = ("https://push.example/another", "kim@example.com")

    def settings(self, url: str) -> Mapping[str, str]:
        self.recipient = f"{url}/push/s3cretENDPOINT"
        self.payload = {"subscription": BROWSER.subscription(self.recipient)}
        return {
            "WEBPUSH_VAPID_PRIVATE_KEY": KEY.private_text,
            "WEBPUSH_VAPID_SUBJECT": "mailto:ops@hub.example",
            "WEBPUSH_TIMEOUT_SECONDS": "20",
            "ALLIM_SSRF_ALLOW": "127.0.0.0/8",
        }

    def make(self, environment: Environment, services: ChannelServices) -> Channel:
        return webpush.make(environment, services)

    def text_of(self, request: Request) -> str:
        return str(_opened(request)["body"])


class TestConformance(ChannelConformance):
    def rig(self) -> AbstractAsyncContextManager[ChannelRig]:
        return WebPushRig.open(WEBPUSH_TIMEOUT_SECONDS="2")


def _opened(request: Request) -> Any:
    return json.loads(BROWSER.decrypted(request.body))


async def test_the_browser_and_only_it_can_read_the_message() -> None:
    async with WebPushRig.open() as rig:
        outcome = await rig.send()
        (request,) = rig.sink.requests
    assert (outcome.kind, outcome.http_status) == (OutcomeKind.DELIVERED, 201)
    assert _opened(request) == {
        "id": str(NOTIFICATION),
        "type": "PAYMENT_FAILED",
        "title": "결제 실패",
        "body": "카드 승인이 거절되었습니다",
        "data": {"order_id": "A-1024"},
    }
    assert "결제".encode() not in request.body
    headers = request.headers
    assert (headers["content-encoding"], headers["ttl"]) == ("aes128gcm", "86400")
    assert "urgency" not in headers
    assert "topic" not in headers


async def test_the_sender_is_told_by_vapid() -> None:
    async with WebPushRig.open() as rig:
        await rig.send()
        (request,) = rig.sink.requests
    found = re.fullmatch(r"vapid t=([^,]+),\s*k=(.+)", request.headers["authorization"])
    assert found is not None
    signed, _, signature = found[1].rpartition(".")
    assert found[2] == KEY.public_text
    raw = from_base64(signature)
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), from_base64(found[2]))
    public.verify(utils.encode_dss_signature(r, s), signed.encode(), ec.ECDSA(hashes.SHA256()))
    claims = json.loads(from_base64(signed.rpartition(".")[2]))
    assert claims["aud"] == rig.sink.url
    assert claims["sub"] == "mailto:ops@hub.example"


def test_a_token_is_signed_once_for_hours_and_before_it_ends_again() -> None:
    now = 1_000_000.0
    signer = webpush.Signer(KEY, "mailto:a@b.example", now=lambda: now)
    first = signer.header("https://push.example")
    now += 5 * 3600
    assert signer.header("https://push.example") == first
    assert signer.header("https://other.example") != first
    now += 2 * 3600
    assert signer.header("https://push.example") != first


async def test_options_become_headers_and_a_body_of_the_callers_own_replaces_ours() -> None:
    more = {"ttl": 0, "urgency": "high", "topic": "order-7", "body": {"web_push": 8030}}
    async with WebPushRig.open(WEBPUSH_TTL_SECONDS="60") as rig:
        await rig.send(payload={**rig.payload, **more})
        await rig.send(payload={**rig.payload, "ttl": "x", "urgency": 1, "topic": "a b"})
        own, odd = rig.sink.requests
    assert (own.headers["ttl"], own.headers["urgency"]) == ("0", "high")
    assert own.headers["topic"] == "order-7"
    assert _opened(own) == {"web_push": 8030}
    assert odd.headers["ttl"] == "60"
    assert "urgency" not in odd.headers


async def test_a_long_message_is_cut_to_what_must_be_taken() -> None:
    async with WebPushRig.open() as rig:
        cut = await rig.send(message="가" * 9000)
        refused = await rig.send(data={"x": "y" * 5000})
        (request,) = rig.sink.requests
    assert cut.kind is OutcomeKind.DELIVERED
    assert len(request.body) <= 4096
    assert len(BROWSER.decrypted(request.body)) > 3980
    assert _opened(request)["body"].endswith("가…")
    assert (refused.kind, refused.code) == (OutcomeKind.REFUSED, "too_large")


@pytest.mark.parametrize(
    ("answer", "kind", "code", "gone"),
    [
        (Answer.of(201), "DELIVERED", None, 0),
        (Answer.of(202), "DELIVERED", None, 0),
        (Answer.of(400, "bad"), "REFUSED", "http_400", 0),
        (Answer.of(403, "the key does not match"), "REFUSED", "bad_vapid", 0),
        (Answer.of(404), "REFUSED", "subscription_gone", 1),
        (Answer.of(410), "REFUSED", "subscription_gone", 1),
        (Answer.of(413), "REFUSED", "too_large", 0),
        (Answer.of(429, headers={"Retry-After": "120"}), "RETRY", "rate_limited", 0),
        (Answer.of(500), "RETRY", "http_500", 0),
        (Answer.of(307, headers={"Location": "http://127.0.0.1/"}), "REFUSED", "http_307", 0),
        (Answer.cut(), "RETRY", "connection_lost", 0),
    ],
)
async def test_what_answers_mean(answer: Answer, kind: str, code: str | None, gone: int) -> None:
    with capture_logs() as logs:
        async with WebPushRig.open() as rig:
            outcome = await rig.send(answer)
    assert (outcome.kind, outcome.code) == (kind, code)
    assert outcome.disable_target is bool(gone)
    assert outcome.retry_after == (120.0 if code == "rate_limited" else None)
    # Browsers come and go: nobody is to be woken by it.
    assert [line["log_level"] for line in logs] == ["info"] * gone


async def test_an_endpoint_inside_our_network_is_never_called() -> None:
    inner = "https://10.0.0.1/push"
    payload = {"subscription": BROWSER.subscription(inner)}
    async with WebPushRig.open() as rig:
        (problem,) = rig.channel.check(Draft(None, "t", "m", None, payload))
        outcome = await rig.send(recipient=inner, payload=payload)
    assert (problem.place, problem.code) == ("/payload/subscription/endpoint", "invalid_url")
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "blocked_address")


async def test_the_endpoint_is_filled_in_as_the_recipient() -> None:
    async with WebPushRig.open() as rig:
        assert isinstance(rig.channel, FillsIn)
        draft = Draft(None, "t", "m", None, rig.payload)
        assert rig.channel.fill_in(draft).recipient == rig.recipient
        assert rig.channel.fill_in(replace(draft, payload={})).recipient is None
        assert rig.channel.target(a_message(rig.recipient)) == rig.sink.url


def _changed(**keys: Any) -> dict[str, Any]:
    whole = BROWSER.subscription("https://push.example/x")
    return {"subscription": {**whole, "keys": {**whole["keys"], **keys}}}


@pytest.mark.parametrize(
    ("payload", "places"),
    [
        ({}, [""]),
        ({"subscription": "https://push.example/x"}, [""]),
        ({"subscription": {}}, ["/endpoint", "/keys"]),
        (
            {"subscription": {"endpoint": 7, "keys": {}}},
            ["/endpoint", "/keys/p256dh", "/keys/auth"],
        ),
        (_changed(p256dh="AAAA"), ["/keys/p256dh"]),
        (_changed(p256dh=base64url.encoded(b"\x04" + b"\x01" * 64)), ["/keys/p256dh"]),
        (_changed(p256dh="***"), ["/keys/p256dh"]),
        (_changed(auth=base64url.encoded(b"fifteen bytes!!")), ["/keys/auth"]),
        (_changed(auth=None), ["/keys/auth"]),
    ],
)
async def test_what_is_no_subscription_is_named_and_never_called(
    payload: dict[str, Any], places: list[str]
) -> None:
    async with WebPushRig.open() as rig:
        problems = rig.channel.check(Draft(None, "t", "m", None, payload))
        outcome = await rig.send(recipient=None, payload=payload)
        assert rig.sink.requests == []
    assert [problem.place for problem in problems] == [f"/payload/subscription{p}" for p in places]
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "invalid_subscription")


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"ttl": -1}, "/payload/ttl"),
        ({"ttl": True}, "/payload/ttl"),
        ({"ttl": 28 * 24 * 3600 + 1}, "/payload/ttl"),
        ({"urgency": "urgent"}, "/payload/urgency"),
        ({"topic": "x" * 33}, "/payload/topic"),
        ({"body": "x" * 3992}, "/payload/body"),
    ],
)
async def test_options_that_cannot_be_are_named(more: dict[str, Any], place: str) -> None:
    async with WebPushRig.open() as rig:
        payload = {**rig.payload, **more}
        (problem,) = rig.channel.check(Draft(None, "t", "m", None, payload))
        (missing,) = rig.channel.check(Draft(None, None, "", None, rig.payload))
    assert problem.place == place
    assert (missing.place, missing.code) == ("/message", "missing")


async def test_keys_may_be_written_in_either_base64() -> None:
    async with WebPushRig.open() as rig:
        subscription = rig.payload["subscription"]
        keys = {
            name: base64.b64encode(from_base64(value)).decode()
            for name, value in subscription["keys"].items()
        }
        await rig.send(payload={"subscription": {**subscription, "keys": keys}})
        (request,) = rig.sink.requests
    assert _opened(request)["title"] == "결제 실패"


async def test_without_a_key_success_says_that_nothing_was_called() -> None:
    environment = Environment({})
    channel = webpush.make(environment, make_services(make_http(environment)))
    assert channel.configured().mode == "not_configured"
    outcome = await send_one(channel, a_message(None))
    assert (outcome.kind, outcome.code) == (OutcomeKind.DELIVERED, "not_configured")


def test_the_command_prints_a_pair_that_the_settings_take() -> None:
    printed = CliRunner().invoke(app, ["webpush", "keys"]).stdout
    private = re.search(r"^WEBPUSH_VAPID_PRIVATE_KEY=(.+)$", printed, re.MULTILINE)
    public = re.search(r"^# applicationServerKey: (.+)$", printed, re.MULTILINE)
    assert private is not None
    assert public is not None
    environment = Environment(
        {"WEBPUSH_VAPID_PRIVATE_KEY": private[1], "WEBPUSH_VAPID_SUBJECT": "https://hub.example"}
    )
    channel = webpush.make(environment, make_services(make_http(environment)))
    assert public[1] in channel.configured().detail
    assert len(from_base64(public[1])) == 65


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_key_of_openssl_is_read_too(encoding: Encoding) -> None:
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        written = KEY.private.private_bytes(encoding, form, NoEncryption())
        text = written.decode() if encoding is Encoding.PEM else base64url.encoded(written)
        assert VapidKey.read(text).private_text == KEY.private_text
        assert VapidKey.read(text.replace("\n", "\\n")).private_text == KEY.private_text


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"WEBPUSH_VAPID_PRIVATE_KEY": "s3cret"}, "WEBPUSH_VAPID_PRIVATE_KEY"),
        (
            {"WEBPUSH_VAPID_PRIVATE_KEY": base64url.encoded(b"\x00" * 32)},
            "WEBPUSH_VAPID_PRIVATE_KEY",
        ),
        ({"WEBPUSH_VAPID_SUBJECT": "ops@hub.example"}, "WEBPUSH_VAPID_SUBJECT"),
        ({"WEBPUSH_VAPID_PRIVATE_KEY": KEY.private_text}, "needs WEBPUSH_VAPID_SUBJECT"),
    ],
)
def test_a_wrong_setting_is_named_but_not_shown(settings: dict[str, str], name: str) -> None:
    environment = Environment(settings)
    with pytest.raises(ConfigurationError, match=name) as caught:
        webpush.make(environment, make_services(make_http(environment)))
    assert "s3cret" not in str(caught.value)
    assert KEY.private_text not in str(caught.value)


def test_a_key_without_the_library_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webpush, "find_spec", lambda name: None)
    environment = Environment(
        {
            "WEBPUSH_VAPID_PRIVATE_KEY": KEY.private_text,
            "WEBPUSH_VAPID_SUBJECT": "mailto:ops@hub.example",
        }
    )
    with pytest.raises(ConfigurationError, match=r"allim\[webpush\]"):
        webpush.make(environment, make_services(make_http(environment)))
