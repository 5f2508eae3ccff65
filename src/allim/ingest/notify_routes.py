"""`POST /notify/{key}` and `POST /notify`, as clients of Apprise's API call them.

The key names routes and is no secret: paths end up in logs. Who may call is said by the API key,
in the header that every client of Apprise can send (Bearer, or Basic with it as the password).
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from pydantic import BaseModel

from allim.base.errors import FieldProblem, InvalidRequest, NotFound
from allim.ingest.bodies import json_body, shown_nul
from allim.ingest.intake import Caller, Intake
from allim.ingest.notify_call import FORM, read_call
from allim.web.access import AccessScope, Principal, requires
from allim.web.bodies import check_json
from allim.web.problems import Refused

CONFIG_ID = "X-Apprise-Config-ID"

Sending = Annotated[Principal, Depends(requires(AccessScope.SEND))]
Once = Annotated[str | None, Header(min_length=1, max_length=100)]

_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_CALL: dict[str, Any] = {
    "type": "object",
    "required": ["body"],
    "properties": {
        "title": {"type": "string"},
        "body": {"type": "string"},
        "type": {"enum": ["info", "success", "warning", "failure"]},
        "tag": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "format": {"enum": ["text", "markdown", "html"]},
    },
}


class NotifiedView(BaseModel):
    """The answer that Apprise's clients look for, and what was made."""

    error: str | None = None
    notifications: list[str]


def notify_routes(intake: Intake) -> APIRouter:
    """Both routes. They answer 200, for Apprise's clients take no other for a success."""
    router = APIRouter(tags=["ingest"])
    what_it_takes = json_body(_CALL, FORM)

    async def take(
        key: str, request: Request, principal: Principal, once: str | None
    ) -> NotifiedView:
        content_type = request.headers.get("content-type", "")
        if content_type.split(";")[0].strip().lower() != FORM:
            check_json(request.scope)
        call = read_call(content_type, shown_nul(await request.body()))
        labels = {"key": key, "type": call.kind.value, "tag": call.tags}
        routes = intake.routes.of_key(key, labels)
        if routes is None:
            raise NotFound("unknown_key", "no route of INGEST_ROUTES has this key")
        if not routes:
            raise Refused(424, "no_route", "no route of this key takes this type and these tags")
        caller = Caller(principal.tenant_id, request.headers.get("traceparent"))
        taken = await intake.take(call.report(key), routes, caller, once)
        return NotifiedView(notifications=[str(each) for each in taken.notifications])

    @router.post(
        "/notify/{key}",
        summary="Notify by a configured key, as clients of Apprise's API do",
        openapi_extra=what_it_takes,
    )
    @router.post("/notify/{key}/", include_in_schema=False)
    async def notify_by_path(
        key: str, request: Request, principal: Sending, idempotency_key: Once = None
    ) -> NotifiedView:
        return await take(key, request, principal, idempotency_key)

    @router.post(
        "/notify",
        summary="The same with the key as the header X-Apprise-Config-ID",
        openapi_extra=what_it_takes,
    )
    @router.post("/notify/", include_in_schema=False)
    async def notify_by_header(
        request: Request, principal: Sending, idempotency_key: Once = None
    ) -> NotifiedView:
        key = request.headers.get(CONFIG_ID, "")
        if not _KEY.fullmatch(key):
            words = "must name a key of INGEST_ROUTES (or call /notify/{key})"
            raise InvalidRequest([FieldProblem(CONFIG_ID, "missing", words)])
        return await take(key, request, principal, idempotency_key)

    return router
