"""HTTP routes of messages: queue one, cancel a reservation, opt-outs, trace a number."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Response

from allim.base.errors import FieldProblem, InvalidRequest
from allim.hub.audited import audited
from allim.hub.coalescer import Coalescer
from allim.hub.creation import Created
from allim.hub.model import MAX_BIGINT
from allim.hub.reading import PAGE_LIMIT
from allim.hub.views import CreatedView, Page
from allim.messaging.cancellation import (
    CancelRequest,
    ReservationPath,
    Reservations,
    ReservationView,
)
from allim.messaging.intake import Intake, Offer
from allim.messaging.job import JOB_ID_LIMIT, MessageJob, checked
from allim.messaging.suppression import SuppressionList, SuppressionRequest, SuppressionView
from allim.messaging.tracing import Tracer, TraceView
from allim.web.access import AccessScope, Principal, requires
from allim.web.bodies import only_json

SOURCE = "messages-api"

Sending = Annotated[Principal, Depends(requires(AccessScope.SEND))]
Reading = Annotated[Principal, Depends(requires(AccessScope.READ))]
Operating = Annotated[Principal, Depends(requires(AccessScope.OPERATE))]
Id = Annotated[int, Path(ge=1, le=MAX_BIGINT)]
Cursor = Annotated[str | None, Query(max_length=100)]
JSON_BODY = Depends(only_json)


def message_routes(intake: Intake, coalescer: Coalescer) -> APIRouter:
    """`POST /messages`."""
    router = APIRouter(tags=["messages"])

    @router.post(
        "/messages",
        status_code=202,
        response_model=CreatedView,
        summary="Queue an SMS or Alimtalk; the same job id is sent once",
        dependencies=[JSON_BODY],
    )
    async def post(
        body: Annotated[MessageJob, Body()],
        principal: Sending,
        response: Response,
        idempotency_key: Annotated[
            str | None, Header(min_length=1, max_length=JOB_ID_LIMIT)
        ] = None,
    ) -> Any:
        job = _of_principal(body, principal)
        if job.job_id is None and idempotency_key is not None:
            job = job.model_copy(update={"job_id": _key(idempotency_key)})
        created = await intake.post(Offer(checked(job), source=SOURCE), coalescer)
        response.headers["Location"] = f"/notifications/{created.id}"
        if created.replayed:
            response.headers["Idempotency-Replayed"] = "true"
        return _view(created)

    return router


def reservation_routes(reservations: Reservations) -> APIRouter:
    """`POST /reservations/{id}/cancel`."""
    router = APIRouter(tags=["messages"])

    @router.post(
        "/reservations/{reservation_id}/cancel",
        summary="What is queued for a reservation is not sent any more",
    )
    async def cancel(
        reservation_id: ReservationPath,
        principal: Sending,
        body: Annotated[CancelRequest | None, Body()] = None,
    ) -> ReservationView:
        return await reservations.cancel(
            reservation_id, body or CancelRequest(), principal.tenant_id
        )

    return router


def suppression_routes(suppressions: SuppressionList) -> APIRouter:
    """The opt-out list."""
    router = APIRouter(prefix="/suppressions", tags=["suppressions"])

    @router.get("", summary="Who must not be written to, newest first")
    async def list_suppressions(
        principal: Reading,
        recipient: Annotated[str | None, Query(max_length=500, pattern=r"^[^\x00]*$")] = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT)] = 50,
        cursor: Cursor = None,
    ) -> Page[SuppressionView]:
        return await suppressions.list(
            own=principal.tenant_id, recipient=recipient, limit=limit, cursor=cursor
        )

    @router.post(
        "",
        status_code=201,
        summary="Write to somebody no more",
        dependencies=[JSON_BODY, audited("suppression.add", "suppression")],
    )
    async def add(
        body: Annotated[SuppressionRequest, Body()], principal: Sending
    ) -> SuppressionView:
        return await suppressions.add(body, principal.tenant_id)

    @router.delete(
        "/{suppression_id}",
        status_code=204,
        summary="Somebody may be written to again",
        dependencies=[audited("suppression.remove", "suppression {suppression_id}")],
    )
    async def remove(suppression_id: Id, principal: Operating) -> None:
        await suppressions.remove(suppression_id, principal.tenant_id)

    return router


def trace_routes(tracer: Tracer) -> APIRouter:
    """`GET /trace`."""
    router = APIRouter(tags=["messages"])

    @router.get(
        "/trace",
        summary="Why did my text not come? All that was sent to a number, in time order",
    )
    async def trace(
        recipient: Annotated[
            str,
            Query(
                min_length=1,
                max_length=500,
                pattern=r"^[^\x00]*$",
                description="A phone number in any spelling, another address, or a provider's id"
                " of a message or group",
            ),
        ],
        principal: Reading,
        limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT)] = 100,
    ) -> TraceView:
        return await tracer.trace(recipient, tenant=principal.tenant_id, limit=limit)

    return router


def _key(given: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", given):
        words = "must be printable ASCII without spaces"
        raise InvalidRequest([FieldProblem("Idempotency-Key", "idempotency_key", words)])
    return given


def _of_principal(job: MessageJob, principal: Principal) -> MessageJob:
    own = principal.tenant_id
    if own is None or job.tenant_id == own:
        return job
    if job.tenant_id is not None:
        raise InvalidRequest(
            [FieldProblem("/tenant_id", "tenant_mismatch", "is not the tenant of the API key")]
        )
    return job.model_copy(update={"tenant_id": own})


def _view(created: Created) -> dict[str, Any]:
    return {
        "id": created.id,
        "status": created.status,
        "created_at": created.created_at,
        "deliveries": [
            {"id": d.id, "channel": d.channel, "recipient": d.recipient, "status": d.status}
            for d in created.deliveries
        ],
    }
