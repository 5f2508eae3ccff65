"""The outbox over HTTP: publishing, and looking into it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from allim.base.errors import Conflict, Forbidden
from allim.database.pool import Database
from allim.database.transactions import converse
from allim.database.waking import EVENTS
from allim.events.dead_letters import ERROR_LIMIT
from allim.events.encryption import Encryption
from allim.events.publishing import store
from allim.events.reading import PAGE_LIMIT, EventFilter, EventReader
from allim.events.relaying.operations import OutboxOperator
from allim.events.requests import NO_NUL, Text, body_schema, read_events
from allim.events.views import (
    BlockedKey,
    EventPage,
    EventStatus,
    EventSummary,
    EventView,
    Published,
)
from allim.hub.audited import audited
from allim.web.access import AccessScope, Principal, requires
from allim.web.bodies import only_json

OnCommit = Callable[[set[str]], None]
Operating = Annotated[Principal, Depends(requires(AccessScope.OPERATE))]
Reading = Annotated[Principal, Depends(requires(AccessScope.READ))]
_CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"description": "Its state does not allow it; `code` says why"}
}


class _Listing(BaseModel):
    # A misspelt filter would otherwise answer with everything.
    model_config = ConfigDict(extra="forbid")

    topic: Text | None = None
    limit: int = Field(default=50, ge=1, le=PAGE_LIMIT)
    cursor: Annotated[str, Field(max_length=2000)] | None = None


class EventQuery(_Listing):
    """Query parameters of `GET /events`."""

    key: Annotated[str, Field(max_length=1024, pattern=NO_NUL)] | None = None
    status: list[EventStatus] | None = None
    error: Annotated[str, Field(max_length=ERROR_LIMIT, pattern=NO_NUL)] | None = Field(
        default=None,
        description="What its error begins with, up to the first colon, as `too_large`",
    )
    since: AwareDatetime | None = Field(default=None, alias="from")
    until: AwareDatetime | None = Field(default=None, alias="to")


class BlockedQuery(_Listing):
    """Query parameters of `GET /events/blocked`."""


def event_routes(
    database: Database, encryption: Encryption, on_commit: OnCommit = lambda lanes: None
) -> APIRouter:
    """Publishing, looking, replaying and discarding."""
    router = APIRouter(prefix="/events", tags=["events"])
    reader = EventReader(database)
    operator = OutboxOperator(database, lambda lanes: on_commit(set(lanes)))

    @router.post(
        "",
        status_code=202,
        summary="Publish an event, or up to 500 in one transaction",
        dependencies=[Depends(only_json)],
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": body_schema()}},
            }
        },
    )
    async def publish(
        request: Request, principal: Annotated[Principal, Depends(requires(AccessScope.SEND))]
    ) -> Published:
        _refuse_tenant(principal)
        messages = read_events(await request.body(), encryption, request.headers.get("traceparent"))
        async with database.transaction() as tx:
            stored = await _answer(converse(tx, lambda: store(messages)))
        on_commit({EVENTS})
        return Published(ids=[message.id for message in messages], stored=stored)

    @router.get("", summary="List events, newest first")
    async def list_events(
        query: Annotated[EventQuery, Query()], principal: Reading
    ) -> EventPage[EventSummary]:
        _refuse_tenant(principal)
        wanted = EventFilter(**query.model_dump(exclude={"limit", "cursor"}, exclude_none=True))
        return await reader.events(wanted, limit=query.limit, cursor=query.cursor)

    @router.get("/blocked", summary="List keys whose messages wait behind one that failed")
    async def list_blocked(
        query: Annotated[BlockedQuery, Query()], principal: Reading
    ) -> EventPage[BlockedKey]:
        _refuse_tenant(principal)
        return await reader.blocked(topic=query.topic, limit=query.limit, cursor=query.cursor)

    @router.get("/{event_id}", summary="One event with its payload")
    async def show_event(event_id: UUID, principal: Reading) -> EventView:
        _refuse_tenant(principal)
        return await reader.event(event_id)

    @router.post(
        "/{event_id}/replay",
        summary="Publish an event again, under the same id; a failed one now",
        responses=_CONFLICT,
        dependencies=[audited("event.replay", "event {event_id}")],
    )
    async def replay(event_id: UUID, principal: Operating) -> EventView:
        _refuse_tenant(principal)
        if not await operator.replay([event_id]):
            waiting = await reader.event(event_id)
            raise Conflict("not_replayable", f"it is {waiting.status}, and leaves anyway")
        return await reader.event(event_id)

    @router.post(
        "/{event_id}/discard",
        summary="Give up on an event that has not left; its key goes on",
        responses=_CONFLICT,
        dependencies=[audited("event.discard", "event {event_id}")],
    )
    async def discard(event_id: UUID, principal: Operating) -> EventView:
        _refuse_tenant(principal)
        if not await operator.discard([event_id]):
            gone = await reader.event(event_id)
            raise Conflict("not_discardable", f"it is {gone.status}: there is nothing to give up")
        return await reader.event(event_id)

    return router


def _refuse_tenant(principal: Principal) -> None:
    if principal.tenant_id is not None:
        raise Forbidden("tenant_key", "events belong to no tenant, and this key sees one only")


async def _answer(given: int | Awaitable[int]) -> int:
    return given if isinstance(given, int) else await given
