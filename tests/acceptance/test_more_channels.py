"""Discord, Teams, Telegram, apprise and browsers, through HTTP against `allim up`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from allim.base import base64url
from allim.channels.vapid import VapidKey
from allim.hub.redaction import shown as shown_recipient
from allim.testing.http import Answer, HttpSink, Request
from tests.programs import Start

pytest.importorskip("apprise", reason="the extra apprise is not installed")
pytest.importorskip("pywebpush", reason="the extra webpush is not installed")


class Providers(HttpSink):
    """All of them on one server; `gone` are those that say that their target is no more."""

    gone = False

    def reply(self, request: Request) -> Answer:
        name = request.path.split("/")[1]
        if self.gone and name in {"discord", "push"}:
            return Answer.of({"discord": 404, "push": 410}[name])
        return {
            "discord": Answer.of(200, '{"id": "42"}'),
            "teams": Answer.of(202),
            "bot12345:s3cret-s3cret-s3cret": Answer.of(
                200, '{"ok": true, "result": {"message_id": 7}}'
            ),
            "apprise": Answer.of(200, "ok"),
            "push": Answer.of(201),
        }[name]


def subscription(endpoint: str) -> Mapping[str, Any]:
    key = VapidKey(ec.generate_private_key(ec.SECP256R1()))
    return {
        "endpoint": endpoint,
        "keys": {"p256dh": key.public_text, "auth": base64url.encoded(b"0123456789abcdef")},
    }


async def test_every_one_is_reached_and_what_is_gone_is_called_no_more(
    start: Start, database_url: str
) -> None:
    async with Providers() as providers:
        url = providers.url
        allim = await start(
            "up",
            DATABASE_URL=database_url,
            DISCORD_WEBHOOK_URL=f"{url}/discord/s3cret",
            TEAMS_WEBHOOK_URL=f"{url}/teams/s3cret",
            TELEGRAM_BOT_TOKEN="12345:s3cret-s3cret-s3cret",
            TELEGRAM_API_URL=url,
            TELEGRAM_CHAT_ID="-1001",
            APPRISE_URL_OPS=url.replace("http", "json") + "/apprise/s3cret",
            WEBPUSH_VAPID_PRIVATE_KEY=VapidKey.generate().private_text,
            WEBPUSH_VAPID_SUBJECT="mailto:ops@hub.example",
            ALLIM_SSRF_ALLOW="127.0.0.0/8",
            ALLIM_LOG_LEVEL="DEBUG",
        )
        push = {
            "channel": "WEBPUSH",
            "payload": {"subscription": subscription(f"{url}/push/s3cret")},
        }
        deliveries = [
            {"channel": "DISCORD"},
            {"channel": "TEAMS"},
            {"channel": "TELEGRAM"},
            {"channel": "APPRISE", "recipient": "ops"},
            push,
        ]
        identity = await allim.create(title="시스템 장애", deliveries=deliveries)
        await allim.attempts(identity, 5)
        shown = await allim.show(identity)
        assert shown["status"] == "COMPLETED"
        told = {
            d["channel"]: (d["recipient"], d["provider_message_id"]) for d in shown["deliveries"]
        }
        assert told == {
            "DISCORD": (None, "42"),
            "TEAMS": (None, None),
            "TELEGRAM": ("-1001", "7"),
            "APPRISE": ("ops", None),
            "WEBPUSH": (shown_recipient(f"{url}/push/s3cret"), None),
        }

        providers.gone = True
        for code in ("gone", "endpoint_disabled"):
            calls = len(providers.requests)
            identity = await allim.create(title="다시", deliveries=[{"channel": "DISCORD"}, push])
            await allim.attempts(identity, 2)
            shown = await allim.show(identity)
            assert {delivery["status"] for delivery in shown["deliveries"]} == {"DEAD"}
            codes = {delivery["error_code"] for delivery in shown["deliveries"]}
            if code == "gone":
                assert codes == {"http_404", "subscription_gone"}
                assert len(providers.requests) == calls + 2
            else:
                assert codes == {"endpoint_disabled"}
                assert len(providers.requests) == calls
        assert await allim.terminate() == 0
        lines = [*allim.words, *map(str, allim.events)]
        assert not any("s3cret" in line for line in lines), lines
