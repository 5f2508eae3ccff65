"""Every call of the API as a value: what is sent, and how the answer is read. No network here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode
from uuid import UUID

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic_core import to_json

from allim.base.ids import uuid7
from allim.hub.views import (
    BulkView,
    CanceledView,
    CreatedView,
    DeliveryView,
    NotificationSummary,
    NotificationView,
    Page,
    ReplayCountView,
    ReplayView,
)

Read = TypeVar("Read")

IDEMPOTENCY_KEY = "Idempotency-Key"
PAGE = 250


class Made(CreatedView):
    """A notification as it was made; `replayed` where an earlier call had made it."""

    model_config = ConfigDict(frozen=True)

    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Call(Generic[Read]):
    """One call. `repeatable`: sent twice it does no more than sent once."""

    method: str
    path: str
    reads: type[Read]
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True

    def read(self, body: bytes, headers: Mapping[str, str]) -> Read:
        """The answer as a value; ValidationError where it is none that we know."""
        value = TypeAdapter(self.reads).validate_json(body)
        if isinstance(value, Made) and headers.get("idempotency-replayed") == "true":
            return value.model_copy(update={"replayed": True})
        return value


def notify(
    fields: Mapping[str, Any], *, idempotency_key: str | None, traceparent: str | None
) -> Call[Made]:
    """`POST /notifications`. Without a key it gets one, so that it can be repeated."""
    headers = {IDEMPOTENCY_KEY: idempotency_key or uuid7().hex}
    if traceparent is not None:
        headers["traceparent"] = traceparent
    return Call("POST", "/notifications", Made, _json(fields), headers)


def bulk(notifications: Iterable[Mapping[str, Any]]) -> Call[BulkView]:
    """`POST /notifications/bulk`. Each without a key gets one, so that all can be repeated."""
    keyed = [{"idempotency_key": uuid7().hex, **each} for each in notifications]
    return Call("POST", "/notifications/bulk", BulkView, _json({"notifications": keyed}))


def notification(identity: UUID | str) -> Call[NotificationView]:
    """`GET /notifications/{id}`."""
    return Call("GET", f"/notifications/{_step(identity)}", NotificationView)


def notifications(wanted: Mapping[str, Any], cursor: str | None) -> Call[Page[NotificationSummary]]:
    """One page of `GET /notifications`."""
    return Call("GET", _query("/notifications", wanted, cursor), Page[NotificationSummary])


def cancel(identity: UUID | str) -> Call[CanceledView]:
    """`POST /notifications/{id}/cancel`; cancelling again succeeds."""
    return Call("POST", f"/notifications/{_step(identity)}/cancel", CanceledView)


def delivery(identity: int) -> Call[DeliveryView]:
    """`GET /deliveries/{id}`."""
    return Call("GET", f"/deliveries/{_step(identity)}", DeliveryView)


def deliveries(wanted: Mapping[str, Any], cursor: str | None) -> Call[Page[DeliveryView]]:
    """One page of `GET /deliveries`."""
    return Call("GET", _query("/deliveries", wanted, cursor), Page[DeliveryView])


def retry(identity: int) -> Call[DeliveryView]:
    """`POST /deliveries/{id}/retry`; a repeat might find it sent, and send it once more."""
    return Call("POST", f"/deliveries/{_step(identity)}/retry", DeliveryView, repeatable=False)


def discard(identity: int, reason: str) -> Call[DeliveryView]:
    """`POST /deliveries/{id}/discard`."""
    path = f"/deliveries/{_step(identity)}/discard"
    return Call("POST", path, DeliveryView, _json({"reason": reason}), repeatable=False)


def count_replay(wanted: Mapping[str, Any]) -> Call[ReplayCountView]:
    """`POST /replays` with `dry_run`."""
    return Call(
        "POST", "/replays", ReplayCountView, _json({"filter": _plain(wanted), "dry_run": True})
    )


def replay(
    wanted: Mapping[str, Any], *, rate_per_second: float | None, reason: str
) -> Call[ReplayView]:
    """`POST /replays`; a repeat would make a second job."""
    body = {"filter": _plain(wanted), "rate_per_second": rate_per_second, "reason": reason}
    return Call("POST", "/replays", ReplayView, _json(body), repeatable=False)


def show_replay(identity: int) -> Call[ReplayView]:
    """`GET /replays/{id}`."""
    return Call("GET", f"/replays/{_step(identity)}", ReplayView)


def _json(value: Any) -> bytes:
    return to_json(value)


def _step(identity: UUID | str | int) -> str:
    return quote(str(identity), safe="")


def _query(path: str, wanted: Mapping[str, Any], cursor: str | None) -> str:
    pairs: list[tuple[str, str]] = [("limit", str(PAGE))]
    for name, value in _plain(wanted).items():
        values: Sequence[Any] = value if isinstance(value, list) else [value]
        pairs += [(name, str(each)) for each in values]
    if cursor is not None:
        pairs.append(("cursor", cursor))
    return f"{path}?{urlencode(pairs)}"


def _plain(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Filters as the API has them: `since` and `until` are its `from` and `to`."""
    names = {"since": "from", "until": "to"}
    plain = {}
    for name, value in wanted.items():
        if value is None:
            continue
        if isinstance(value, datetime):
            value = value.astimezone().isoformat()
        elif isinstance(value, list | tuple | set | frozenset):
            value = [str(each) for each in value]
        elif isinstance(value, BaseModel):
            value = value.model_dump(mode="json")
        plain[names.get(name, name)] = value
    return plain
