"""WEBHOOK: a signed POST of JSON to the recipient's URL (Standard Webhooks).

2xx is success. 408, 425, 429, 5xx and a broken network are tried again. Any other status is
refused (3xx too: redirects are not followed), unless `payload.retry_all` is true; 410 says
that the endpoint is gone.

Of the payload, `body` replaces the JSON that is sent, `headers` adds headers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import structlog
from pydantic import Field, SecretStr, field_validator
from yarl import URL

from allim.base.errors import FieldProblem
from allim.base.settings import Environment, SettingsGroup
from allim.channels.answers import outcome_of_answer
from allim.channels.channel import (
    ChannelServices,
    Configured,
    Draft,
    HttpAnswer,
    Message,
    RecipientKind,
)
from allim.channels.json_bytes import json_bytes
from allim.channels.posting import PostingChannel
from allim.channels.sending import Sending, sending
from allim.channels.signing import BadSecret, secret_key, sign
from allim.relay.outcomes import Outcome
from allim.relay.sender import SendingLimits

NAME = "WEBHOOK"
HEADER_COUNT = 20
HEADER_LENGTH = 1024
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)
HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*", re.ASCII)
OWN_HEADERS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "traceparent",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
OWN_PREFIXES = ("webhook-", "proxy-")
ANY = range(1000)
GONE = frozenset({410})
OWN_PAYLOAD = frozenset({"headers", "retry_all", "body"})

log = structlog.get_logger("allim.channels.webhook")


class WebhookSettings(SettingsGroup):
    """How webhooks are signed."""

    webhook_secrets: SecretStr | None = Field(
        None,
        description="Signing secrets (whsec_…) for targets without their own, newest first,"
        " parted by commas or spaces. Two while one replaces the other.",
    )

    @field_validator("webhook_secrets")
    @classmethod
    def _are_secrets(cls, value: SecretStr | None) -> SecretStr | None:
        for secret in _split(value):
            secret_key(secret)
        return value

    def secrets(self) -> tuple[str, ...]:
        """The secrets, newest first."""
        return _split(self.webhook_secrets)


class WebhookChannel(PostingChannel):
    """Posts to whatever URL the caller names, through the SSRF guard."""

    name = NAME
    recipient_kind = RecipientKind.URL
    only_target: str | None = None

    def __init__(
        self,
        settings: WebhookSettings,
        sending: Sending,
        services: ChannelServices,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(sending, services)
        self._secrets = settings.secrets()
        self._secrets_for = services.secrets_for
        self._now = now

    def check(self, draft: Draft) -> Sequence[FieldProblem]:
        """The recipient must be a callable URL, `payload.headers` headers that may be set."""
        problems = []
        if not draft.recipient:
            problems.append(FieldProblem("/recipient", "missing", "a webhook needs its URL"))
        elif problem := self._http.check_url(draft.recipient):
            problems.append(FieldProblem("/recipient", "invalid_url", f"the URL {problem}"))
        problems.extend(_check_headers(draft.payload.get("headers")))
        return problems

    def configured(self) -> Configured:
        """Live; says whether there is a secret for targets without their own."""
        signed = "signed" if self._secrets else "not signed, WEBHOOK_SECRETS is not set"
        return Configured("live", f"posts to the recipient's URL; by default {signed}")

    def target(self, content: Message) -> str:
        """Scheme, host and port: the path may hold a token."""
        return _origin(content.recipient or "")

    async def deliver(self, message: Message) -> Outcome:
        """Post; see the module for what answers mean."""
        url = message.recipient
        if not url:
            return Outcome.refused("invalid_url", "there is no URL to post to")
        body = _body(message)
        headers = _headers(message)
        secrets = await self._secrets_for(message.tenant_id, url) or self._secrets
        if secrets:
            timestamp = int(self._now())
            headers["webhook-timestamp"] = str(timestamp)
            try:
                headers["webhook-signature"] = sign(
                    secrets, message_id=headers["webhook-id"], timestamp=timestamp, body=body
                )
            except BadSecret as error:
                log.error("webhook_secret_bad", target=self.target(message), problem=str(error))
                return Outcome.fault("bad_webhook_secret", str(error))

        def read(answer: HttpAnswer) -> Outcome:
            retry_all = message.payload.get("retry_all") is True
            return outcome_of_answer(answer, retried=ANY if retry_all else (), gone=GONE)

        return await self.post(url, read, body=body, headers=headers, trusted=False)


def make(environment: Environment, services: ChannelServices) -> WebhookChannel:
    """Make the channel."""
    return WebhookChannel(
        environment.read(WebhookSettings),
        sending(environment, NAME, timeout=15.0, limits=SendingLimits(concurrency=64)),
        services,
    )


def _body(message: Message) -> bytes:
    payload = message.payload
    if "body" in payload:
        return json_bytes(payload["body"])
    content: dict[str, Any] = {
        "id": message.notification_id,
        "delivery_id": message.delivery_id,
        "type": message.type,
        "source": message.source,
        "title": message.title,
        "message": message.message,
        "data": dict(message.data),
        "created_at": message.created_at,
    }
    if rest := {key: value for key, value in payload.items() if key not in OWN_PAYLOAD}:
        content["payload"] = rest
    return json_bytes(content)


def _headers(message: Message) -> dict[str, str]:
    """What goes out; custom headers that `check` would name are left out."""
    headers = {
        "Content-Type": "application/json",
        "webhook-id": f"msg_{message.notification_id}_{message.delivery_id}",
    }
    if message.traceparent:
        headers["traceparent"] = message.traceparent
    custom = message.payload.get("headers")
    if custom and not _check_headers(custom):
        headers.update(custom)
    return headers


def _check_headers(headers: object) -> list[FieldProblem]:
    if headers is None:
        return []
    place = "/payload/headers"
    if not isinstance(headers, Mapping) or len(headers) > HEADER_COUNT:
        return [FieldProblem(place, "invalid", f"must be an object of at most {HEADER_COUNT}")]
    problems = []
    for name, value in headers.items():
        if not isinstance(name, str) or not HEADER_NAME.fullmatch(name):
            problems.append(FieldProblem(place, "invalid", "has a name that is not a header's"))
        elif name.lower() in OWN_HEADERS or name.lower().startswith(OWN_PREFIXES):
            problems.append(FieldProblem(f"{place}/{name}", "reserved", "cannot be set"))
        elif (
            not isinstance(value, str)
            or len(value) > HEADER_LENGTH
            or not HEADER_VALUE.fullmatch(value)
        ):
            problems.append(
                FieldProblem(
                    f"{place}/{name}",
                    "invalid",
                    f"must be printable ASCII text of at most {HEADER_LENGTH} characters",
                )
            )
    return problems


@lru_cache(maxsize=4096)
def _origin(url: str) -> str:
    try:
        parsed = URL(url)
    except ValueError:
        return "invalid"
    return f"{parsed.scheme}://{parsed.raw_host}:{parsed.port}" if parsed.raw_host else "invalid"


def _split(secrets: SecretStr | None) -> tuple[str, ...]:
    return tuple(secrets.get_secret_value().replace(",", " ").split()) if secrets else ()
