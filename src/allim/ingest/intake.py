"""Taking in: what came in one call becomes one notification for each route that takes it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import psycopg

from allim.base.errors import FieldProblem, Forbidden, InvalidRequest
from allim.channels.channel import Channel
from allim.database.pool import Connection, Database
from allim.hub.coalescer import OnCommit, unstorable_request
from allim.hub.creation import Created
from allim.hub.service import Hub
from allim.ingest.alert_states import AlertStates, News
from allim.ingest.alert_wording import report_of
from allim.ingest.alerts import Alert, AlertGroup
from allim.ingest.matching import Labels
from allim.ingest.report import Report
from allim.ingest.routing import Route, Routes, Source
from allim.web.problems import Refused

log = logging.getLogger("allim.ingest")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who brings something: the tenant of its key, and its trace."""

    tenant_id: int | None = None
    traceparent: str | None = None


@dataclass(slots=True)
class Taken:
    """The notifications that were made; the channels that they wake."""

    notifications: list[UUID] = field(default_factory=list)
    lanes: set[str] = field(default_factory=set)
    problems: list[FieldProblem] = field(default_factory=list)
    """Of routes that could not be used for it."""


class Intake:
    """Makes notifications of what comes in, by the routes.

    Everything of one call is stored in one transaction, so that a call that is not answered
    may be made again. A route that cannot carry what came stops no other: what could be told is
    stored, and the call is answered with what could not. Where nothing could be told, nothing
    is remembered either.
    """

    def __init__(
        self,
        database: Database,
        channels: Mapping[str, Channel],
        routes: Routes,
        states: AlertStates,
        on_commit: OnCommit = lambda lanes: None,
    ) -> None:
        self._database = database
        self._hub = Hub(channels)
        self._states = states
        self._on_commit = on_commit
        self.routes = routes

    def require(self, source: Source) -> None:
        """Raise Refused where there is no route for a source."""
        if source not in self.routes.sources():
            raise Refused(
                403,
                "routes_not_set_up",
                f"INGEST_ROUTES has no route that takes what {source} sends",
            )

    async def take_alerts(self, source: Source, group: AlertGroup, caller: Caller) -> Taken:
        """Tell of what is new in a group of alerts; what was told before is not told again.

        Raises InvalidRequest where a route's delivery cannot carry it, Forbidden,
        DatabaseUnavailable.
        """
        async with self._transaction() as (tx, taken):
            news = await self._states.news(tx, source, caller.tenant_id, group)
            # In a thread, as many alerts may be held against many routes.
            by_route = await asyncio.to_thread(self._by_route, source, group, news)
            for route, own in by_route:
                await self._tell(tx, taken, route, report_of(source, group, own), caller, None)
        return taken

    async def take(
        self, report: Report, routes: Sequence[Route], caller: Caller, key: str | None
    ) -> Taken:
        """Tell of something by each of these routes, once for an idempotency key.

        Raises InvalidRequest where a route's delivery cannot carry it, Forbidden,
        IdempotencyMismatch, DatabaseUnavailable; then nothing was told.
        """
        async with self._transaction() as (tx, taken):
            for route in routes:
                own = None if key is None else f"{report.source}:{route.name}:{key}"
                await self._tell(tx, taken, route, report, caller, own)
        return taken

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[tuple[Connection, Taken]]:
        taken = Taken()
        try:
            async with self._database.transaction() as tx:
                yield tx, taken
                if taken.problems and not taken.notifications:
                    raise InvalidRequest(taken.problems)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise unstorable_request(error) from error
        if taken.lanes:
            self._on_commit(taken.lanes)
        if taken.problems:
            raise InvalidRequest(taken.problems)

    def _by_route(
        self, source: Source, group: AlertGroup, news: Sequence[News]
    ) -> Sequence[tuple[Route, Sequence[News]]]:
        found: dict[str, tuple[Route, list[News]]] = {}
        for each in news:
            for route in self.routes.choose(source, _labels(group, each.alert)):
                found.setdefault(route.name, (route, []))[1].append(each)
        return list(found.values())

    async def _tell(
        self,
        tx: Connection,
        taken: Taken,
        route: Route,
        report: Report,
        caller: Caller,
        key: str | None,
    ) -> None:
        if caller.tenant_id is not None and route.tenant_id not in (None, caller.tenant_id):
            raise Forbidden("tenant_mismatch", f"the route {route.name!r} is another tenant's")
        if not route.deliveries:
            return
        deliveries = route.asked()
        if report.html is not None:
            deliveries = [_with_html(delivery, report.html) for delivery in deliveries]
        try:
            created = await self._notify(tx, route, report, caller, key, deliveries)
        except InvalidRequest as error:
            # Found before anything was asked of the database, so the transaction is whole.
            shortened = report.shortened_at(deliveries, error.problems)
            try:
                created = await self._notify(tx, route, report, caller, key, shortened)
            except InvalidRequest as still:
                found = ", ".join(f"{each.place} {each.code}" for each in still.problems)
                log.error("the route %r cannot carry what came: %s", route.name, found)
                taken.problems += [_of_route(route, problem) for problem in still.problems]
                return
        taken.notifications.append(created.id)
        if not created.replayed:
            taken.lanes |= {delivery.channel for delivery in created.deliveries}

    async def _notify(
        self,
        tx: Connection,
        route: Route,
        report: Report,
        caller: Caller,
        key: str | None,
        deliveries: Sequence[Mapping[str, Any]],
    ) -> Created:
        return await self._hub.notify(
            tx,
            source=report.source.value,
            type=report.type,
            title=report.title,
            message=report.message,
            data=report.data,
            priority=route.priority.value,
            tenant_id=caller.tenant_id or route.tenant_id,
            idempotency_key=key,
            traceparent=caller.traceparent,
            deliveries=deliveries,
        )


def _of_route(route: Route, problem: FieldProblem) -> FieldProblem:
    """With the name of the route: whoever called has written no delivery."""
    return replace(problem, message=f"(in the route {route.name!r}) {problem.message}")


def _labels(group: AlertGroup, alert: Alert) -> Labels:
    # No label of Prometheus has a dot in its name, so these hide none.
    return {
        **alert.labels,
        "ingest.receiver": group.receiver,
        "ingest.status": alert.status.value,
    }


def _with_html(delivery: dict[str, Any], html: str) -> dict[str, Any]:
    payload = delivery.get("payload") or {}
    if delivery["channel"] != "EMAIL" or "html" in payload:
        return delivery
    return {**delivery, "payload": {**payload, "html": html}}
