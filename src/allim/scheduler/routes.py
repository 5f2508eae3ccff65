"""HTTP routes of the scheduler."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from starlette.responses import Response

from allim.hub.audited import audited
from allim.hub.model import MAX_BIGINT
from allim.hub.reading import PAGE_LIMIT
from allim.hub.views import Page
from allim.scheduler.model import ScheduleChange, ScheduleRequest
from allim.scheduler.schedules import Schedules
from allim.scheduler.views import FireView, ScheduleView
from allim.web.access import AccessScope, requires
from allim.web.bodies import only_json

Id = Annotated[int, Path(ge=1, le=MAX_BIGINT)]
Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT)]
Cursor = Annotated[str | None, Query(max_length=100)]

_READ = Depends(requires(AccessScope.READ, every_tenant=True))
_OPERATE = Depends(requires(AccessScope.OPERATE, every_tenant=True))
_CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"description": "Its state does not allow it; `code` says why"}
}


def schedule_routes(schedules: Schedules) -> APIRouter:
    """Schedules and their fires."""
    router = APIRouter(prefix="/schedules", tags=["schedules"])

    @router.get("", summary="List schedules, newest first", dependencies=[_READ])
    async def list_schedules(limit: Limit = 50, cursor: Cursor = None) -> Page[ScheduleView]:
        return await schedules.list(limit=limit, cursor=cursor)

    @router.post(
        "",
        status_code=201,
        summary="Run a job at cron times",
        responses=_CONFLICT,
        dependencies=[_OPERATE, Depends(only_json), audited("schedule.create", "schedule")],
    )
    async def create(body: ScheduleRequest, response: Response) -> ScheduleView:
        made = await schedules.create(body)
        response.headers["Location"] = f"/schedules/{made.id}"
        return made

    @router.get("/{schedule_id}", summary="One schedule", dependencies=[_READ])
    async def show(schedule_id: Id) -> ScheduleView:
        return await schedules.one(schedule_id)

    @router.patch(
        "/{schedule_id}",
        summary="Change, pause or resume a schedule",
        responses=_CONFLICT,
        dependencies=[
            _OPERATE,
            Depends(only_json),
            audited("schedule.change", "schedule {schedule_id}"),
        ],
    )
    async def change(schedule_id: Id, body: ScheduleChange) -> ScheduleView:
        return await schedules.change(schedule_id, body)

    @router.delete(
        "/{schedule_id}",
        status_code=204,
        summary="Remove a schedule and the record of its fires",
        dependencies=[_OPERATE, audited("schedule.remove", "schedule {schedule_id}")],
    )
    async def remove(schedule_id: Id) -> None:
        await schedules.remove(schedule_id)

    @router.post(
        "/{schedule_id}/fire",
        status_code=202,
        summary="Run its job now, by whichever scheduler comes first",
        responses=_CONFLICT,
        dependencies=[_OPERATE, audited("schedule.fire", "schedule {schedule_id}")],
    )
    async def fire(schedule_id: Id) -> FireView:
        return await schedules.fire(schedule_id)

    @router.get(
        "/{schedule_id}/fires", summary="List its fires, newest first", dependencies=[_READ]
    )
    async def list_fires(
        schedule_id: Id, limit: Limit = 50, cursor: Cursor = None
    ) -> Page[FireView]:
        return await schedules.fires(schedule_id, limit=limit, cursor=cursor)

    return router
