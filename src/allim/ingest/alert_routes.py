"""`POST /ingest/alertmanager` and `POST /ingest/grafana`.

Both senders try again after a 5xx and after no answer, and Alertmanager not after a 4xx (it says
so itself: "5xx response codes are assumed to be recoverable"). So what may pass, an overload or
a missing database, is 503, and what another try cannot mend is 4xx.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request

from allim.ingest.alerts import AlertGroup, AlertmanagerGroup, GrafanaGroup
from allim.ingest.bodies import TakenView, json_body, parse, raw_json
from allim.ingest.intake import Caller, Intake
from allim.ingest.routing import Source
from allim.web.access import AccessScope, Principal, requires
from allim.web.bodies import only_json

ALERTMANAGER = "/ingest/alertmanager"
GRAFANA = "/ingest/grafana"
BODY_BYTES = 16 * 1024 * 1024

Sending = Annotated[Principal, Depends(requires(AccessScope.SEND))]
Traceparent = Annotated[str | None, Header()]

_GROUP = {
    "type": "object",
    "required": ["receiver", "status", "alerts"],
    "properties": {
        "version": {"type": "string"},
        "receiver": {"type": "string"},
        "status": {"enum": ["firing", "resolved"]},
        "alerts": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["status", "labels", "startsAt", "fingerprint"],
            },
        },
    },
}


def alert_routes(intake: Intake) -> APIRouter:
    """Both routes."""
    router = APIRouter(tags=["ingest"], dependencies=[Depends(only_json)])

    async def take(
        kind: type[AlertGroup],
        source: Source,
        request: Request,
        principal: Principal,
        traceparent: str | None,
    ) -> TakenView:
        intake.require(source)
        # In a thread: a large group takes a while to read, and others must not wait for it.
        group = await asyncio.to_thread(parse, kind, await raw_json(request))
        caller = Caller(principal.tenant_id, traceparent)
        return TakenView.of(await intake.take_alerts(source, group, caller))

    @router.post(
        ALERTMANAGER,
        status_code=202,
        summary="Alerts of Prometheus Alertmanager's webhook, version 4",
        openapi_extra=json_body(_GROUP),
    )
    async def alertmanager(
        request: Request, principal: Sending, traceparent: Traceparent = None
    ) -> TakenView:
        return await take(AlertmanagerGroup, Source.ALERTMANAGER, request, principal, traceparent)

    @router.post(
        GRAFANA,
        status_code=202,
        summary="Alerts of Grafana's webhook contact point",
        openapi_extra=json_body(_GROUP),
    )
    async def grafana(
        request: Request, principal: Sending, traceparent: Traceparent = None
    ) -> TakenView:
        return await take(GrafanaGroup, Source.GRAFANA, request, principal, traceparent)

    return router
