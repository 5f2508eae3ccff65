"""HTTP routes of quiet hours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query

from allim.base.errors import FieldProblem, InvalidRequest
from allim.channels.channel import Channel
from allim.hub.model import MAX_BIGINT
from allim.hub.quiet_hours import QuietHoursBook, QuietHoursRequest, QuietHoursView
from allim.hub.reading import PAGE_LIMIT
from allim.hub.views import Page
from allim.web.access import AccessScope, Principal, requires
from allim.web.bodies import only_json

Id = Annotated[int, Path(ge=1, le=MAX_BIGINT)]
Reading = Annotated[Principal, Depends(requires(AccessScope.READ))]
Operating = Annotated[Principal, Depends(requires(AccessScope.OPERATE))]


def quiet_hours_routes(book: QuietHoursBook, channels: Mapping[str, Channel]) -> APIRouter:
    """Windows in which nothing is sent."""
    router = APIRouter(prefix="/quiet-hours", tags=["quiet hours"])

    @router.get("", summary="Windows in which nothing is sent, newest first")
    async def list_windows(
        principal: Reading,
        limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT)] = 50,
        cursor: Annotated[str | None, Query(max_length=100)] = None,
    ) -> Page[QuietHoursView]:
        return await book.list(own=principal.tenant_id, limit=limit, cursor=cursor)

    @router.post(
        "",
        status_code=201,
        summary="Send nothing in a window; what is due waits for its end",
        dependencies=[Depends(only_json)],
    )
    async def add(
        body: Annotated[QuietHoursRequest, Body()], principal: Operating
    ) -> QuietHoursView:
        if body.channel is not None and body.channel not in channels:
            words = f"must be one of: {', '.join(sorted(channels))}"
            raise InvalidRequest([FieldProblem("/channel", "unknown_channel", words)])
        own = principal.tenant_id
        if own is not None and body.tenant_id not in (None, own):
            words = "is not the tenant of the API key"
            raise InvalidRequest([FieldProblem("/tenant_id", "tenant_mismatch", words)])
        tenant = body.tenant_id if own is None else own
        return await book.add(body, tenant=tenant, actor=principal.name)

    @router.delete("/{quiet_hours_id}", status_code=204, summary="Remove a window")
    async def remove(quiet_hours_id: Id, principal: Operating) -> None:
        await book.remove(quiet_hours_id, own=principal.tenant_id, actor=principal.name)

    return router
