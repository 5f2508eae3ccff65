"""`/jobs/outbox/*`: sending the alert chain on demand."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends
from pydantic import BaseModel, ConfigDict, Field

from allim.enrolment.dispatch import DispatchSummary, OutboxDispatch
from allim.enrolment.dispatch_settings import BATCH_LIMIT
from allim.enrolment.job_answers import JOB_REFUSALS, JobRoute
from allim.web.access import AccessScope, requires
from allim.web.bodies import only_json

BatchSize = Annotated[int, Field(ge=1, le=BATCH_LIMIT)]

_GUARDS = [
    # Not divided by tenants: a pass sends whatever is due.
    Depends(requires(AccessScope.OPERATE, every_tenant=True)),
    Depends(only_json),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class DispatchRequest(_Body):
    """How much to send; all of it may be left out."""

    batch_size: BatchSize | None = Field(
        default=None, description="By default as in the settings", examples=[50]
    )


class ChainRequest(_Body):
    """How much to send of each; all of it may be left out."""

    sheet_batch_size: BatchSize | None = Field(
        default=None, description="By default SHEET_DISPATCH_BATCH_SIZE", examples=[50]
    )
    notification_batch_size: BatchSize | None = Field(
        default=None, description="By default NOTI_DISPATCH_BATCH_SIZE", examples=[50]
    )


class Dispatched(BaseModel):
    """The answer of one pass. Sends that failed do not make it a failure: it is about the pass."""

    ok: bool = True
    summary: DispatchSummary


class ChainDispatched(BaseModel):
    """The answer of both."""

    ok: bool = True
    sheet: DispatchSummary
    notification: DispatchSummary


def dispatch_routes(dispatch: OutboxDispatch) -> APIRouter:
    """The three dispatch endpoints."""
    described: dict[int | str, dict[str, Any]] = JOB_REFUSALS
    router = APIRouter(
        prefix="/jobs/outbox",
        tags=["jobs"],
        route_class=JobRoute,
        dependencies=_GUARDS,
        responses=described,
    )

    @router.post("/sheet-dispatch", summary="Write what waits for the sheet, once through")
    async def sheet(body: Annotated[DispatchRequest | None, Body()] = None) -> Dispatched:
        return Dispatched(summary=await dispatch.sheet(body.batch_size if body else None))

    @router.post("/notification-dispatch", summary="Send what waits for Kakao, once through")
    async def notification(body: Annotated[DispatchRequest | None, Body()] = None) -> Dispatched:
        return Dispatched(summary=await dispatch.notification(body.batch_size if body else None))

    @router.post("/dispatch", summary="The sheet first, then Kakao with what followed")
    async def chain(body: Annotated[ChainRequest | None, Body()] = None) -> ChainDispatched:
        asked = body or ChainRequest()
        done = await dispatch.chain(asked.sheet_batch_size, asked.notification_batch_size)
        return ChainDispatched(sheet=done.sheet, notification=done.notification)

    return router
