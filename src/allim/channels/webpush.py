"""WEBPUSH: encrypted messages to browsers (RFC 8030, RFC 8291, VAPID: RFC 8292).

`payload.subscription` is what the browser gave; the recipient is its endpoint, filled in where
it is left out. What is encrypted is JSON for the page's service worker: id, type, title, body
and data of the message, or `payload.body` instead. `payload.ttl` (seconds), `payload.urgency` and
`payload.topic` become the headers of these names.

2xx is success. 404 and 410 say that the subscription is gone: no further call is made to it.
408, 425, 429, 5xx and a broken network are tried again, all else is refused; 413 is a message
that is too large, 401 and 403 a subscription that was made with another key.

The encryption is that of `pywebpush`, the call our own: through the SSRF guard, for an endpoint
is a URL that callers supply.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pydantic import Field, SecretStr, field_validator
from yarl import URL

from allim.base.errors import ConfigurationError, FieldProblem
from allim.base.settings import Environment, SettingsGroup
from allim.channels.answers import outcome_of_answer
from allim.channels.channel import (
    NOTHING_TO_SAY,
    ChannelServices,
    Configured,
    Draft,
    HttpAnswer,
    Message,
    RecipientKind,
    says_nothing,
)
from allim.channels.json_bytes import json_bytes
from allim.channels.posting import PostingChannel
from allim.channels.push_subscription import (
    PLACE,
    Subscription,
    endpoint_of,
    read_subscription,
)
from allim.channels.sending import Sending, sending
from allim.channels.shortening import shortened_to_fit
from allim.channels.vapid import VapidKey
from allim.relay.outcomes import Outcome
from allim.relay.sender import SendingLimits

NAME = "WEBPUSH"
LIBRARY = "pywebpush"
GONE = frozenset({404, 410})
PAYLOAD_LIMIT = 3993
"""Bytes before encryption: with its header and its tag they make the 4096 that must be taken."""
LONGEST_TTL = 28 * 24 * 3600
URGENCIES = ("very-low", "low", "normal", "high")
TOKEN_SECONDS = 12 * 3600
"""How long a signed token is good for; push services take up to 24 hours."""
TOKENS_KEPT = 500

REASONS: Mapping[int, tuple[str, str]] = {
    401: ("bad_vapid", "the VAPID key or its subject is refused"),
    403: ("bad_vapid", "the subscription was made with another VAPID key"),
    404: ("subscription_gone", "the subscription is gone"),
    410: ("subscription_gone", "the subscription is gone"),
    413: ("too_large", "the message is too large"),
}

_TOPIC = re.compile(r"[\w-]{1,32}", re.ASCII)
_SUBJECT = re.compile(r"mailto:[^\s@]+@[^\s@]+|https://\S+")


class WebPushSettings(SettingsGroup):
    """Who sends messages to browsers."""

    webpush_vapid_private_key: SecretStr | None = Field(
        None,
        description="The private VAPID key; `allim webpush keys` makes one. Not set: messages"
        " succeed without a call.",
    )
    webpush_vapid_subject: str | None = Field(
        None,
        description="Whom push services may turn to: mailto:you@example.com, or an https:// URL.",
    )
    webpush_ttl_seconds: int = Field(
        24 * 3600,
        ge=0,
        le=LONGEST_TTL,
        description="How long a push service keeps a message for a browser that is not there.",
    )

    @field_validator("webpush_vapid_private_key")
    @classmethod
    def _is_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            VapidKey.read(value.get_secret_value())
        return value

    @field_validator("webpush_vapid_subject")
    @classmethod
    def _is_subject(cls, value: str | None) -> str | None:
        if value is not None and not _SUBJECT.fullmatch(value):
            raise ValueError("must be mailto:you@example.com, or an https:// URL")
        return value


class WebPushChannel(PostingChannel):
    """Posts to browsers' push services."""

    name = NAME
    recipient_kind = RecipientKind.PUSH_SUBSCRIPTION
    only_target: str | None = None
    gone_level = logging.INFO

    def __init__(
        self,
        signer: Signer | None,
        sending: Sending,
        services: ChannelServices,
        *,
        ttl: int,
    ) -> None:
        super().__init__(sending, services)
        self._signer = signer
        self._ttl = ttl
        self._library: Any = None

    def fill_in(self, draft: Draft) -> Draft:
        """The endpoint as the recipient, where the draft names none."""
        if draft.recipient:
            return draft
        return replace(draft, recipient=endpoint_of(draft.payload.get("subscription")))

    def check(self, draft: Draft) -> Sequence[FieldProblem]:
        """The subscription must be one, its endpoint callable; options must be what they are."""
        problems = []
        subscription = read_subscription(draft.payload.get("subscription"))
        if not isinstance(subscription, Subscription):
            problems.extend(subscription)
        elif problem := self._check_endpoint(subscription.endpoint):
            problems.append(FieldProblem(f"{PLACE}/endpoint", "invalid_url", problem))
        elif draft.recipient and draft.recipient != subscription.endpoint:
            words = "is not the subscription's endpoint; leave it out"
            problems.append(FieldProblem("/recipient", "other_endpoint", words))
        return [*problems, *_check_options(draft)]

    def configured(self) -> Configured:
        """Live with a key, else a success that says it called nobody."""
        if self._signer is None:
            return Configured(
                "not_configured",
                "WEBPUSH_VAPID_PRIVATE_KEY is not set: nothing is sent to browsers",
                needs="WEBPUSH_VAPID_PRIVATE_KEY",
            )
        return Configured("live", f"applicationServerKey {self._signer.public_text}")

    def target(self, content: Message) -> str:
        """The push service; the path of an endpoint is a secret."""
        return _origin(content.recipient or "") or "invalid"

    async def deliver(self, message: Message) -> Outcome:
        """Encrypt and post; see the module for what answers mean."""
        if self._signer is None:
            return Outcome.delivered("not_configured", detail="no VAPID key is configured")
        subscription = read_subscription(message.payload.get("subscription"))
        if not isinstance(subscription, Subscription):
            words = "; ".join(f"{problem.place} {problem.message}" for problem in subscription)
            return Outcome.refused("invalid_subscription", words)
        if message.recipient and message.recipient != subscription.endpoint:
            return Outcome.refused(
                "invalid_subscription", "the recipient is not the subscription's endpoint"
            )
        content = _content(message)
        if len(content) > PAYLOAD_LIMIT:
            return Outcome.refused(
                "too_large", f"has {len(content)} bytes, more than {PAYLOAD_LIMIT}"
            )
        origin = _origin(subscription.endpoint)
        if origin is None:
            return Outcome.refused("invalid_url", "the endpoint has no host name")
        if self._library is None:
            # Loading it takes a moment that others need not wait for.
            self._library = await asyncio.to_thread(import_module, LIBRARY)
        return await self.post(
            subscription.endpoint,
            _outcome,
            body=_encrypted(self._library, subscription, content),
            headers={**self._options(message), "Authorization": self._signer.header(origin)},
            trusted=False,
            secret=subscription.endpoint,
        )

    def _check_endpoint(self, endpoint: str) -> str | None:
        if problem := self._http.check_url(endpoint):
            return f"the URL {problem}"
        return None if _origin(endpoint) else "the URL has no host name"

    def _options(self, message: Message) -> dict[str, str]:
        payload = message.payload
        wrong = {problem.place for problem in _check_options(Draft.of(message))}
        ttl = payload.get("ttl") if "/payload/ttl" not in wrong else None
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Encoding": "aes128gcm",
            "TTL": str(self._ttl if ttl is None else ttl),
        }
        for part in ("urgency", "topic"):
            if payload.get(part) is not None and f"/payload/{part}" not in wrong:
                headers[part.title()] = payload[part]
        return headers


class Signer:
    """Signs for push services by VAPID; a token is signed once and used for hours."""

    def __init__(
        self, key: VapidKey, subject: str, *, now: Callable[[], float] = time.time
    ) -> None:
        self.public_text = key.public_text
        self._key = key
        self._subject = subject
        self._now = now
        self._tokens: dict[str, tuple[float, str]] = {}

    def header(self, origin: str) -> str:
        """The `Authorization` header for a push service."""
        now = self._now()
        known = self._tokens.get(origin)
        if known is not None and known[0] > now:
            return known[1]
        if len(self._tokens) >= TOKENS_KEPT:
            self._tokens.clear()
        claims = {"aud": origin, "sub": self._subject, "exp": int(now) + TOKEN_SECONDS}
        # The subject is ours to check: that library knows fewer domains than there are.
        vapid = import_module("py_vapid").Vapid02(self._key.private, {"no-strict": True})
        header = str(vapid.sign(claims)["Authorization"])
        self._tokens[origin] = (now + TOKEN_SECONDS / 2, header)
        return header


def make(environment: Environment, services: ChannelServices) -> WebPushChannel:
    """Make the channel. Raises ConfigurationError where a key is set but not what it needs."""
    settings = environment.read(WebPushSettings)
    key, subject = settings.webpush_vapid_private_key, settings.webpush_vapid_subject
    signer = None
    if key is not None:
        if subject is None:
            raise ConfigurationError(
                "WEBPUSH_VAPID_PRIVATE_KEY needs WEBPUSH_VAPID_SUBJECT: mailto:you@example.com"
            )
        if find_spec(LIBRARY) is None:
            raise ConfigurationError(
                "WEBPUSH_VAPID_PRIVATE_KEY needs the library pywebpush:"
                " pip install 'allim[webpush]'"
            )
        signer = Signer(VapidKey.read(key.get_secret_value()), subject)
    return WebPushChannel(
        signer,
        sending(environment, NAME, timeout=15.0, limits=SendingLimits(concurrency=32)),
        services,
        ttl=settings.webpush_ttl_seconds,
    )


def _outcome(answer: HttpAnswer) -> Outcome:
    code, reason = REASONS.get(answer.status, (None, ""))
    return outcome_of_answer(answer, by="the push service", code=code, reason=reason, gone=GONE)


def _content(message: Message) -> bytes:
    """What the service worker gets; a long message is cut, what is the caller's own is not."""
    if "body" in message.payload:
        return json_bytes(message.payload["body"])

    def written(body: str) -> bytes:
        return json_bytes(
            {
                "id": message.notification_id,
                "type": message.type,
                "title": message.title,
                "body": body,
                "data": dict(message.data),
            }
        )

    return shortened_to_fit(message.message or "", PAYLOAD_LIMIT, written)


def _encrypted(library: Any, subscription: Subscription, content: bytes) -> bytes:
    keys = {"p256dh": subscription.p256dh, "auth": subscription.auth}
    pusher = library.WebPusher({"endpoint": subscription.endpoint, "keys": keys})
    return bytes(pusher.encode(content, "aes128gcm")["body"])


def _check_options(draft: Draft) -> list[FieldProblem]:
    payload, problems = draft.payload, []
    ttl, urgency, topic = payload.get("ttl"), payload.get("urgency"), payload.get("topic")
    if ttl is not None and (type(ttl) is not int or not 0 <= ttl <= LONGEST_TTL):
        words = f"must be seconds, 0 to {LONGEST_TTL}"
        problems.append(FieldProblem("/payload/ttl", "invalid", words))
    if urgency is not None and urgency not in list(URGENCIES):
        words = f"must be one of {', '.join(URGENCIES)}"
        problems.append(FieldProblem("/payload/urgency", "invalid", words))
    if topic is not None and not (isinstance(topic, str) and _TOPIC.fullmatch(topic)):
        words = "must be 1 to 32 letters, digits, - or _"
        problems.append(FieldProblem("/payload/topic", "invalid", words))
    if "body" in payload:
        if len(json_bytes(payload["body"])) > PAYLOAD_LIMIT:
            words = f"has more than {PAYLOAD_LIMIT} bytes as JSON"
            problems.append(FieldProblem("/payload/body", "too_long", words))
    elif says_nothing(draft):
        problems.append(NOTHING_TO_SAY)
    return problems


def _origin(url: str) -> str | None:
    """Scheme, host and port: who is called, and the audience of a VAPID token.

    None for what has none, and for IPv6 addresses, which such a token cannot name.
    """
    try:
        parsed = URL(url)
        named = parsed.raw_host and ":" not in parsed.raw_host
        return str(parsed.origin()) if named else None
    except ValueError:
        return None
