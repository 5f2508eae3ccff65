"""What an operator looks for, as the address of the page says it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from allim.base.errors import FieldProblem, InvalidRequest
from allim.console.visit import Visit
from allim.hub.finding import Finder
from allim.hub.model import MAX_BIGINT
from allim.hub.reading import NotificationFilter
from allim.hub.status import NotificationStatus
from allim.messaging.tracing import spellings

PERIODS = {
    "1h": timedelta(hours=1),
    "24h": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
EXACT = "exact"
_PHONE = 2


@dataclass(frozen=True, slots=True)
class Search:
    """The fields of the form; `text` says to look in words whatever they look like."""

    q: str | None = None
    text: bool = False
    status: NotificationStatus | None = None
    channel: str | None = None
    source: str | None = None
    type: str | None = None
    tenant: int | None = None
    period: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def of(cls, visit: Visit) -> Search:
        """Read from the query; raises InvalidRequest for what it cannot be."""
        period = visit.query("period")
        exact = period == EXACT
        return cls(
            q=visit.query("q"),
            text=visit.query("in") == "text",
            status=_status(visit.query("status")),
            channel=visit.query("channel"),
            source=visit.query("source"),
            type=visit.query("type"),
            tenant=whole_number(visit, "tenant"),
            period=period if exact or period in PERIODS else None,
            since=moment(visit, "from") if exact else None,
            until=moment(visit, "to") if exact else None,
        )

    @property
    def query(self) -> dict[str, object]:
        """As the query of an address."""
        return {
            "q": self.q,
            "in": "text" if self.text else None,
            "status": self.status,
            "channel": self.channel,
            "source": self.source,
            "type": self.type,
            "tenant": self.tenant,
            "period": self.period,
            "from": _iso(self.since),
            "to": _iso(self.until),
        }

    @property
    def is_narrow(self) -> bool:
        """Whether anything beside the one field is asked for."""
        return any(value for name, value in self.query.items() if name not in ("q", "in"))


@dataclass(frozen=True, slots=True)
class Reading:
    """How the one field was taken: straight to a notification, or as a filter of some `kind`."""

    wanted: NotificationFilter
    kind: str | None = None
    straight_to: UUID | None = None


async def read_search(search: Search, finder: Finder) -> Reading:
    """What the one field means: an id, a phone number, a recipient, a key, or words."""
    since = search.since
    if search.period in PERIODS:
        since = datetime.now(UTC) - PERIODS[search.period]
    common = {
        "status": None if search.status is None else [search.status],
        "channel": search.channel,
        "source": search.source,
        "type": search.type,
        "tenant_id": search.tenant,
        "since": since,
        "until": search.until,
    }

    def reading(kind: str | None = None, **more: object) -> Reading:
        return Reading(NotificationFilter(**{**common, **more}), kind)  # type: ignore[arg-type]

    q = search.q
    if q is None:
        return reading()
    if search.text:
        return reading("text", q=q)
    spelt = spellings(q)
    if len(spelt) >= _PHONE:
        return reading("phone", recipient=spelt)
    straight = await finder.notification(q)
    if straight is not None:
        return Reading(NotificationFilter(), "id", straight)
    if await finder.is_recipient(q):
        return reading("recipient", recipient=q)
    if known := await finder.known_as(q):
        return reading("key", ids=known)
    return reading("text", q=q)


def whole_number(visit: Visit, name: str) -> int | None:
    """A number of the query; raises InvalidRequest for what is none."""
    given = visit.query(name)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit()) or int(given[:30]) > MAX_BIGINT:
        raise InvalidRequest([FieldProblem(name, "number", visit.t("notifications.not_a_number"))])
    return int(given)


def moment(visit: Visit, name: str) -> datetime | None:
    """A time of the query; one without a zone is UTC. Raises InvalidRequest for what is none."""
    return read_moment(visit, name, visit.query(name))


def read_moment(visit: Visit, name: str, given: str | None) -> datetime | None:
    """A time as the form sends it. Raises InvalidRequest for what is none."""
    if given is None:
        return None
    try:
        read = datetime.fromisoformat(given)
        return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            [FieldProblem(name, "time", visit.t("notifications.not_a_time"))]
        ) from None


def _status(given: str | None) -> NotificationStatus | None:
    return NotificationStatus.__members__.get(given or "")


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
