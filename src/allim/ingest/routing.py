"""The routes of `INGEST_ROUTES`: which of what comes in goes where.

They are read once, at the start, and what is wrong with them stops it: a route that could not
be used would be noticed when an alert is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic_core import PydanticCustomError, from_json, to_json

from allim.base.errors import ConfigurationError, InvalidRequest, RequestError
from allim.base.validation import invalid_body
from allim.channels.channel import Channel
from allim.hub.creation import prepare
from allim.hub.model import (
    DELIVERIES_PER_NOTIFICATION,
    DeliveryRequest,
    NotificationRequest,
    Priority,
    TenantId,
)
from allim.ingest.matching import Labels, Matcher, read_matcher

SETTING = "INGEST_ROUTES"
ROUTES_LIMIT = 1000
FILE_BYTES = 4 * 1024 * 1024


class Source(StrEnum):
    """Who tells."""

    ALERTMANAGER = "alertmanager"
    GRAFANA = "grafana"
    GITHUB = "github"
    NOTIFY = "notify"


HOOKS = (Source.ALERTMANAGER, Source.GRAFANA, Source.GITHUB)
"""Sources of which every event needs a route; what comes to /notify names its own."""


def _matcher(value: Any) -> Matcher:
    if not isinstance(value, str):
        raise PydanticCustomError("matcher", "must be a text")
    try:
        return read_matcher(value)
    except ValueError as error:
        raise PydanticCustomError("matcher", "{why}", {"why": str(error)}) from None


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}$")]


class Route(BaseModel):
    """One route: what it takes, and the deliveries that are made of it."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True
    )

    name: Name
    sources: list[Source] = Field(default=[*HOOKS], min_length=1)
    key: Name | None = None
    """The `key` of /notify/{key}: the route takes what comes there, and nothing else."""
    match: list[Annotated[Matcher, BeforeValidator(_matcher)]] = Field(
        default_factory=list, max_length=50
    )
    goes_on: bool = Field(default=False, alias="continue")
    priority: Priority = Priority.NORMAL
    tenant_id: TenantId | None = None
    deliveries: list[DeliveryRequest] = Field(max_length=DELIVERIES_PER_NOTIFICATION)
    """None: what comes here is dropped."""

    def takes(self, labels: Labels) -> bool:
        """Whether every matcher is fulfilled."""
        return all(matcher.matches(labels) for matcher in self.match)

    def asked(self) -> list[dict[str, Any]]:
        """Its deliveries as a caller would ask for them."""
        return [delivery.model_dump(exclude_defaults=True) for delivery in self.deliveries]


class Routes:
    """All routes, in their order."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes

    def __len__(self) -> int:
        return len(self._routes)

    def choose(self, source: Source, labels: Labels) -> Sequence[Route]:
        """The first route that takes it, and the next ones where that says `continue`."""
        return list(_first(r for r in self._of(source) if r.takes(labels)))

    def of_key(self, key: str, labels: Labels) -> Sequence[Route] | None:
        """The same among the routes of a key of /notify; None where no route has it."""
        routes = [route for route in self._routes if route.key == key]
        return list(_first(r for r in routes if r.takes(labels))) if routes else None

    def sources(self) -> Sequence[Source]:
        """The sources that have a route."""
        return [source for source in HOOKS if any(self._of(source))]

    def notify_keys(self) -> Sequence[str]:
        """The keys of /notify that have a route."""
        return list(dict.fromkeys(route.key for route in self._routes if route.key is not None))

    def _of(self, source: Source) -> Iterator[Route]:
        return (r for r in self._routes if r.key is None and source in r.sources)


def read_routes(setting: str | None, channels: Mapping[str, Channel]) -> Routes:
    """The routes of the setting; none where it is not set.

    Raises ConfigurationError naming every route that cannot be used, and why.
    """
    if setting is None:
        return Routes([])
    found = _parsed(setting)
    if not isinstance(found, list) or not found:
        raise ConfigurationError(f"{SETTING} must be a JSON list of one route or more")
    if len(found) > ROUTES_LIMIT:
        raise ConfigurationError(f"{SETTING} has more than {ROUTES_LIMIT} routes")
    routes: list[Route] = []
    wrong: list[str] = []
    for at, item in enumerate(found, start=1):
        named = f"route {at}{_name_of(item)}"
        try:
            route = Route.model_validate_json(to_json(item))
            routes.append(route)
            wrong += [f"{named}: {problem}" for problem in _unusable(route, item, channels)]
        except ValidationError as error:
            wrong += [f"{named}: {problem}" for problem in _said(invalid_body(error))]
    if not wrong:
        wrong = list(_incomplete(routes))
    if wrong:
        raise ConfigurationError(f"{SETTING}: " + "; ".join(wrong))
    return Routes(routes)


def _parsed(setting: str) -> Any:
    where, text = SETTING, setting.encode()
    if not setting.lstrip().startswith(("[", "{")):
        where = f"{SETTING} ({setting})"
        try:
            with Path(setting).open("rb") as file:
                text = file.read(FILE_BYTES + 1)
        except OSError as error:
            raise ConfigurationError(f"{where}: {error.strerror}") from None
        if len(text) > FILE_BYTES:
            raise ConfigurationError(f"{where} is larger than {FILE_BYTES} bytes")
    try:
        return from_json(text)
    except ValueError as error:
        raise ConfigurationError(f"{where} is not JSON: {error}") from None


def _unusable(route: Route, item: Any, channels: Mapping[str, Channel]) -> Iterator[str]:
    if route.key is not None and "sources" in item:
        yield "has a key, so it can have no sources: it takes what comes to /notify/{key} only"
    if Source.NOTIFY in route.sources:
        yield "sources: notify is none of them; a route of /notify/{key} has a key instead"
    if any(_row_keys(route.deliveries)):
        yield "deliveries: a row_key is good once, and a route is used over and over"
        return
    if not route.deliveries:
        return
    sample = NotificationRequest(
        source="ingest",
        type="SAMPLE",
        title="sample",
        message="sample",
        deliveries=route.deliveries,
    )
    try:
        prepare(sample, channels)
    except InvalidRequest as error:
        yield from _said(error)


def _incomplete(routes: Sequence[Route]) -> Iterator[str]:
    names = [route.name for route in routes]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"the name {name!r} is taken more than once"
    for source in HOOKS:
        own = [route for route in routes if route.key is None and source in route.sources]
        if own and all(route.match for route in own):
            yield (
                f"no route takes what is left of {source}: let the last one have no match"
                " (and no deliveries, where the rest is to be dropped)"
            )


def _said(error: RequestError) -> Iterator[str]:
    for problem in getattr(error, "problems", ()):
        yield f"{problem.place.lstrip('/')} {problem.message}".strip()


def _row_keys(deliveries: Sequence[DeliveryRequest]) -> Iterator[str]:
    for delivery in deliveries:
        if delivery.row_key is not None:
            yield delivery.row_key
        yield from _row_keys([*delivery.then, *delivery.fallback])


def _name_of(item: Any) -> str:
    name = item.get("name") if isinstance(item, dict) else None
    return f" ({name[:64]!r})" if isinstance(name, str) else ""


def _first(taking: Iterator[Route]) -> Iterator[Route]:
    for route in taking:
        yield route
        if not route.goes_on:
            return
