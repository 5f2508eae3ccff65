"""What readers are shown of what a delivery holds: no secret that would let them post there, too.

What is stored and sent stays as it is. A key that may put such a secret in may see it as well: of
deliveries one that may `send`, of endpoints and replays one that may `operate`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, TypeVar
from urllib.parse import urlsplit

from allim.hub.views import (
    CanceledView,
    DeliveryLine,
    DeliveryView,
    EndpointView,
    NotificationSummary,
    NotificationView,
    ReplayView,
)
from allim.web.access import AccessScope, Principal

HIDDEN = "***"
"""Stands for a header's value, and for what a browser's push subscription holds."""
_KEYS = ("headers", "subscription")
"""Of a payload: each value in them may be a key."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")
_SUBSCRIPTION = re.compile(r"\{.*\"endpoint\".*\}", re.DOTALL)

Endpoint = TypeVar("Endpoint", bound=EndpointView)
Line = TypeVar("Line", bound=DeliveryLine)
Notification = TypeVar("Notification", NotificationSummary, NotificationView, CanceledView)


def shown(recipient: object) -> str:
    """The recipient; of an address only its scheme and host, and a hash to tell it by.

    Paths, queries and users of addresses hold tokens (Slack's, Teams' and Discord's webhooks are
    nothing else), those of apprise do where a host would be, and a push subscription holds keys.
    """
    if recipient is None:
        return ""
    recipient = str(recipient)
    if _SUBSCRIPTION.fullmatch(recipient.strip()):
        found = _URL.search(recipient)
        return f"{_bare(found[0]) if found else ''} #{_hash(recipient)}".strip()
    return _URL.sub(lambda found: _bare(found[0]) + _mark(found[0]), recipient)


def shown_delivery(delivery: Line, to: Principal) -> Line:
    """A delivery without what its recipient and its headers may give away."""
    return delivery if AccessScope.SEND in to.scopes else _veiled(delivery)


def shown_notification(notification: Notification, to: Principal) -> Notification:
    """The same of everything whose deliveries are shown."""
    if AccessScope.SEND in to.scopes:
        return notification
    deliveries = [_veiled(each) for each in notification.deliveries]
    return notification.model_copy(update={"deliveries": deliveries})


def shown_endpoint(endpoint: Endpoint, to: Principal) -> Endpoint:
    """The same of a target."""
    if AccessScope.OPERATE in to.scopes:
        return endpoint
    return endpoint.model_copy(update={"url": shown(endpoint.url)})


def shown_replay(replay: ReplayView, to: Principal) -> ReplayView:
    """The same of the recipient that a replay was made for."""
    if AccessScope.OPERATE in to.scopes or not replay.filter.get("recipient"):
        return replay
    told = {**replay.filter, "recipient": shown(replay.filter["recipient"])}
    return replay.model_copy(update={"filter": told})


def _veiled(delivery: Line) -> Line:
    told: dict[str, Any] = {"recipient": _shown_or_none(delivery.recipient)}
    if isinstance(delivery, DeliveryView):
        told["payload"] = _payload(delivery.payload)
        told["then"] = _steps(delivery.then)
        told["fallback"] = _steps(delivery.fallback)
    return delivery.model_copy(update=told)


def _shown_or_none(recipient: str | None) -> str | None:
    return None if recipient is None else shown(recipient)


def _payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    told = dict(payload)
    for name in _KEYS:
        if secret := told.get(name):
            whole = not isinstance(secret, Mapping)
            told[name] = HIDDEN if whole else dict.fromkeys(secret, HIDDEN)
    return told


def _steps(steps: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    return None if steps is None else [_step(step) for step in steps]


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    told = dict(step)
    if told.get("recipient") is not None:
        told["recipient"] = shown(told["recipient"])
    if isinstance(told.get("payload"), Mapping):
        told["payload"] = _payload(told["payload"])
    for name in ("then", "fallback"):
        if told.get(name):
            told[name] = _steps(told[name])
    return told


def _bare(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            return f"{parts.scheme}://"
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname or ''}{port}"
    except ValueError:
        return "://"


def _mark(url: str) -> str:
    bare = _bare(url)
    if url.rstrip("/") == bare:
        return ""
    return f"{'' if bare.endswith('://') else '/'}… #{_hash(url)}"


def _hash(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
