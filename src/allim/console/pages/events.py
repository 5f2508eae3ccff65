"""Events: by topic and key, what is blocked and by what, and who reads the slots."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from starlette.responses import Response

from allim.base.errors import Conflict, FieldProblem, InvalidRequest
from allim.console.fared import fared_in
from allim.console.page import Page
from allim.console.payloads import payload_of
from allim.console.services import ConsoleServices
from allim.console.standing import MOST, Standing
from allim.console.visit import Visit
from allim.events.reading import EventFilter
from allim.events.relaying.operations import DISCARDABLE, REPLAYABLE
from allim.events.views import EventStatus
from allim.hub.rollups import Rollups, Window
from allim.relay.tally import OUTBOX

_REASON_LIMIT = 500
_BLOCKED = 20


def events_page(services: ConsoleServices) -> Page:
    """The page and what it does."""
    page = Page("events")
    events, operator = services.events, services.event_operator
    standing, rollups = Standing(services.database, ()), Rollups(services.database)

    @page.get("/events")
    async def show(visit: Visit) -> Response:
        status = visit.query("status")
        wanted = EventFilter(
            status=[EventStatus(status)] if status in set(EventStatus) else None,
            topic=visit.query("topic"),
            key=visit.query("key"),
        )
        found = await events.events(wanted, cursor=visit.cursor)
        blocked = await events.blocked(
            topic=wanted.topic, limit=_BLOCKED, cursor=visit.query("blocked")
        )
        return visit.render(
            "events/show.html",
            standing=await standing.events(),
            relays=await standing.event_relays(),
            most=MOST,
            topics=fared_in(await rollups.series(Window.HOUR), OUTBOX),
            blocked=blocked,
            events=found.items,
            following=found.next,
            cursor=visit.cursor,
            wanted=wanted,
            chosen=status if wanted.status else None,
            statuses=list(EventStatus),
        )

    @page.get("/events/{id:uuid}")
    async def detail(visit: Visit) -> Response:
        event = await events.event(visit.request.path_params["id"])
        return visit.render(
            "events/detail.html",
            event=event,
            payload=payload_of(event),
            may_replay=event.status in REPLAYABLE,
            may_discard=event.status in DISCARDABLE,
        )

    @page.post("/events/{id:uuid}/replay")
    async def replay(visit: Visit) -> Response:
        return await act(visit, "event.replay", operator.replay, "events.replayed")

    @page.post("/events/{id:uuid}/discard")
    async def discard(visit: Visit) -> Response:
        reason = visit.form.required("reason")
        if len(reason) > _REASON_LIMIT:
            problem = FieldProblem("/reason", "too_long", f"has over {_REASON_LIMIT} characters")
            raise InvalidRequest([problem])
        return await act(visit, "event.discard", operator.discard, "events.discarded", reason)

    async def act(
        visit: Visit,
        action: str,
        do: Callable[[list[UUID]], Awaitable[int]],
        done: str,
        reason: str | None = None,
    ) -> Response:
        identity: UUID = visit.request.path_params["id"]

        async def run() -> None:
            event = await events.event(identity)
            if not await do([identity]):
                status = visit.t(f"status.{event.status}")
                raise Conflict("event_status", visit.t("events.not_possible", status=status))

        # To where it was asked for: a line of the listing, or the event's own page.
        back = "/events" if visit.form.text("back") == "list" else f"/events/{identity}"
        return await visit.act(
            action,
            f"event {identity}",
            run,
            to=back,
            done=visit.t(done),
            detail={"reason": reason} if reason else None,
        )

    return page
