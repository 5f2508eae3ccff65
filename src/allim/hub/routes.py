"""The hub's HTTP routes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from allim.base.errors import AllimError, InvalidRequest, NotFound
from allim.channels.channel import Channel
from allim.hub.bulk import BulkCreation
from allim.hub.channel_names import require_known
from allim.hub.coalescer import Coalescer
from allim.hub.creation import Created, prepare, templates_of
from allim.hub.model import (
    MAX_BIGINT,
    BulkRequest,
    ChannelName,
    NotificationRequest,
    Recipient,
    RowKey,
    TenantId,
    Word,
)
from allim.hub.reading import PAGE_LIMIT, DeliveryFilter, NotificationFilter, Reader
from allim.hub.redaction import shown_delivery, shown_notification
from allim.hub.status import DeliveryStatus, NotificationStatus
from allim.hub.templates.naming import Templates, Wanted
from allim.hub.views import (
    BulkView,
    CreatedView,
    DeliveryView,
    NotificationSummary,
    NotificationView,
    Page,
)
from allim.web.access import NO_KEY, PRINCIPAL, AccessScope, Principal, requires
from allim.web.bodies import header, read_json_body
from allim.web.problems import Unauthenticated, document_of

DeliveryId = Annotated[int, Path(ge=1, le=MAX_BIGINT)]
Reading = Annotated[Principal, Depends(requires(AccessScope.READ))]
FindTemplates = Callable[[Collection[Wanted]], Awaitable[Templates]]


class CreateNotification:
    """`POST /notifications`, as plain ASGI: the one route whose speed is promised.

    Only a request that names templates waits for them to be looked up.
    """

    def __init__(
        self, channels: Mapping[str, Channel], coalescer: Coalescer, templates: FindTemplates
    ) -> None:
        self._channels = channels
        self._coalescer = coalescer
        self._templates = templates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        principal = _sender(scope)
        body = await read_json_body(scope, receive)
        request = NotificationRequest.model_validate_json(body)
        key = traceparent = None
        for name, value in scope["headers"]:
            if name == b"idempotency-key":
                key = value.decode("latin-1")
            elif name == b"traceparent":
                traceparent = value.decode("latin-1")
        wanted = templates_of(request, principal.tenant_id)
        preparing = partial(
            prepare,
            request,
            self._channels,
            tenant_id=principal.tenant_id,
            idempotency_key=key,
            traceparent=traceparent,
        )
        if wanted:
            templates = await self._templates(wanted)
            # In a thread: a costly template must not hold up everybody else.
            try:
                prepared = await asyncio.to_thread(preparing, templates=templates)
            except InvalidRequest:
                found = await self._coalescer.first_answer(
                    request, tenant_id=principal.tenant_id, idempotency_key=key
                )
                if found is None:
                    raise
                await _answer_created(send, found)
                return
        else:
            prepared = preparing()
        await _answer_created(send, await self._coalescer.store(prepared))


async def _answer_created(send: Send, created: Created) -> None:
    answer = created_json(created)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer)).encode()),
        (b"location", f"/notifications/{created.id}".encode()),
    ]
    if created.replayed:
        headers.append((b"idempotency-replayed", b"true"))
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def created_json(created: Created) -> bytes:
    """The answer to a request that created a notification, or had created it before."""
    return to_json(
        {
            "id": created.id,
            "status": created.status,
            "created_at": created.created_at,
            "deliveries": [
                {"id": d.id, "channel": d.channel, "recipient": d.recipient, "status": d.status}
                for d in created.deliveries
            ],
        }
    )


class CreateBulk:
    """`POST /notifications/bulk`, as plain ASGI too."""

    def __init__(self, bulk: BulkCreation) -> None:
        self._bulk = bulk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        principal = _sender(scope)
        body = await read_json_body(scope, receive)
        given = header(scope, b"traceparent")
        traceparent = given.decode("latin-1") if given else None
        results = await self._bulk.create(body, tenant=principal.tenant_id, traceparent=traceparent)
        answer = b'{"results":[' + b",".join(map(_bulk_item, results)) + b"]}"
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(answer)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def _sender(scope: Scope) -> Principal:
    """The principal that the middleware found, who must be allowed to send."""
    principal: Principal | None = scope.get(PRINCIPAL)
    if principal is None:
        raise Unauthenticated("unauthenticated", NO_KEY)
    principal.require(AccessScope.SEND)
    return principal


def _bulk_item(result: Created | AllimError) -> bytes:
    if isinstance(result, Created):
        replayed = b"true" if result.replayed else b"false"
        return (
            b'{"status":202,"replayed":'
            + replayed
            + b',"notification":'
            + created_json(result)
            + b"}"
        )
    found = document_of(result)
    return to_json({"status": found["status"], "problem": found})


class _Listing(BaseModel):
    # A misspelt filter would otherwise answer with everything.
    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=PAGE_LIMIT)
    cursor: Annotated[str, Field(max_length=100)] | None = None


class NotificationQuery(_Listing):
    """Query parameters of `GET /notifications`."""

    status: list[NotificationStatus] | None = None
    source: Word | None = None
    type: Word | None = None
    channel: ChannelName | None = None
    recipient: Recipient | None = None
    tenant_id: TenantId | None = None
    since: AwareDatetime | None = Field(default=None, alias="from")
    until: AwareDatetime | None = Field(default=None, alias="to")
    q: Word | None = Field(default=None, description="Words in title, message, type or source")


class DeliveryQuery(_Listing):
    """Query parameters of `GET /deliveries`."""

    status: list[DeliveryStatus] | None = None
    channel: ChannelName | None = None
    recipient: Recipient | None = None
    notification_id: UUID | None = None
    error_code: Word | None = None
    tenant_id: TenantId | None = None
    provider_id: Word | None = Field(
        default=None, description="The provider's id of the attempt, as Solapi's group"
    )
    provider_message_id: Word | None = Field(
        default=None, description="The provider's id of the message"
    )
    row_key: RowKey | None = None


def reading_routes(reader: Reader, channels: Collection[str]) -> APIRouter:
    """Routes that show notifications and deliveries; `channels` are those there is any of."""
    router = APIRouter(tags=["notifications"])

    @router.get("/notifications", summary="List notifications, newest first")
    async def list_notifications(
        query: Annotated[NotificationQuery, Query()], principal: Reading
    ) -> Page[NotificationSummary]:
        wanted = NotificationFilter(**_filters(query, principal, channels))
        found = await reader.notifications(wanted, limit=query.limit, cursor=query.cursor)
        return found.each(lambda each: shown_notification(each, principal))

    @router.get("/notifications/{notification_id}", summary="One notification")
    async def show_notification(notification_id: UUID, principal: Reading) -> NotificationView:
        return shown_notification(
            await reader.notification(notification_id, principal.tenant_id), principal
        )

    @router.get("/deliveries", summary="List deliveries, newest first", tags=["deliveries"])
    async def list_deliveries(
        query: Annotated[DeliveryQuery, Query()], principal: Reading
    ) -> Page[DeliveryView]:
        wanted = DeliveryFilter(**_filters(query, principal, channels))
        found = await reader.deliveries(wanted, limit=query.limit, cursor=query.cursor)
        return found.each(lambda each: shown_delivery(each, principal))

    @router.get("/deliveries/{delivery_id}", summary="One delivery", tags=["deliveries"])
    async def show_delivery(delivery_id: DeliveryId, principal: Reading) -> DeliveryView:
        return shown_delivery(await reader.delivery(delivery_id, principal.tenant_id), principal)

    return router


def _filters(
    query: NotificationQuery | DeliveryQuery, principal: Principal, channels: Collection[str]
) -> dict[str, Any]:
    require_known(query.channel, channels, "channel")
    filters = query.model_dump(exclude={"limit", "cursor"}, exclude_none=True)
    own = principal.tenant_id
    if own is not None and filters.setdefault("tenant_id", own) != own:
        raise NotFound("tenant_not_found", "this key sees one tenant only, and not that one")
    return filters


CREATE_OPERATION: dict[str, Any] = {
    "tags": ["notifications"],
    "summary": "Create a notification and its deliveries in one transaction",
    "operationId": "create_notification",
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "The same key and body get the first answer again",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        },
        {
            "name": "traceparent",
            "in": "header",
            "required": False,
            "description": "W3C Trace Context, carried to every attempt",
            "schema": {"type": "string"},
        },
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/NotificationRequest"}}
        },
    },
    "responses": {
        "202": {
            "description": "Stored",
            "headers": {
                "Location": {"schema": {"type": "string"}},
                "Idempotency-Replayed": {
                    "description": "true where an earlier request had stored it",
                    "schema": {"type": "string"},
                },
            },
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/CreatedView"}}
            },
        },
        "409": {
            "description": "A row key is taken",
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        },
    },
}
"""How OpenAPI describes `POST /notifications`, which FastAPI does not know."""

BULK_OPERATION: dict[str, Any] = {
    "tags": ["notifications"],
    "summary": "Create up to 1000 notifications; each is answered by itself",
    "operationId": "create_bulk",
    "parameters": [CREATE_OPERATION["parameters"][1]],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/BulkRequest"}}},
    },
    "responses": {
        "200": {
            "description": "What became of each, in their order",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/BulkView"}}},
        }
    },
}
"""The same of `POST /notifications/bulk`."""


def create_schemas() -> dict[str, Any]:
    """The schemas that the operations described here refer to."""
    _, definitions = models_json_schema(
        [
            (NotificationRequest, "validation"),
            (CreatedView, "serialization"),
            (BulkRequest, "validation"),
            (BulkView, "serialization"),
        ],
        ref_template="#/components/schemas/{model}",
    )
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas
