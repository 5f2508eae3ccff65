"""HTTP routes for what people do: cancel, retry, discard, endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints
from pydantic_core import PydanticCustomError

from allim.base.errors import FieldProblem, InvalidRequest
from allim.channels.channel import Channel, Draft
from allim.hub.audited import audited
from allim.hub.channel_names import unknown_channel
from allim.hub.endpoints import SIGNED_CHANNEL, EndpointBook
from allim.hub.model import MAX_BIGINT, ChannelName, Recipient, TenantId
from allim.hub.operations import Operations
from allim.hub.reading import PAGE_LIMIT, Reader
from allim.hub.redaction import shown_delivery, shown_endpoint, shown_notification
from allim.hub.resolution import RECIPIENT_BYTES
from allim.hub.views import CanceledView, DeliveryView, EndpointSecretView, EndpointView, Page
from allim.web.access import AccessScope, Principal, requires
from allim.web.bodies import only_json

Id = Annotated[int, Path(ge=1, le=MAX_BIGINT)]
Canceling = Annotated[Principal, Depends(requires(AccessScope.SEND, AccessScope.OPERATE))]
"""Who sent it may call it off, and so may who looks after it, as in the console."""
Reading = Annotated[Principal, Depends(requires(AccessScope.READ))]
Operating = Annotated[Principal, Depends(requires(AccessScope.OPERATE))]
_CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"description": "Its state does not allow it; `code` says why"}
}


JSON_BODY = Depends(only_json)


def _http_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable()
    except ValueError:
        valid = False
    if not valid or len(url.encode("utf-8", "surrogatepass")) > RECIPIENT_BYTES:
        raise PydanticCustomError("url", "must be an http or https URL")
    return url


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class DiscardRequest(_Body):
    """Why a delivery is given up."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]


class EndpointRequest(_Body):
    """A webhook target that gets a signing secret."""

    url: Annotated[Recipient, AfterValidator(_http_url)]
    channel: ChannelName = SIGNED_CHANNEL
    tenant_id: TenantId | None = None


def operation_routes(operations: Operations, reader: Reader) -> APIRouter:
    """Cancel, retry and discard."""
    router = APIRouter()

    @router.post(
        "/notifications/{notification_id}/cancel",
        summary="Cancel what is not under way",
        tags=["notifications"],
        responses=_CONFLICT,
        dependencies=[audited("notification.cancel", "notification {notification_id}")],
    )
    async def cancel(notification_id: UUID, principal: Canceling) -> CanceledView:
        return shown_notification(
            await operations.cancel(notification_id, principal.tenant_id), principal
        )

    @router.post(
        "/deliveries/{delivery_id}/retry",
        summary="Send a dead, skipped or held delivery again; a failed one now",
        tags=["deliveries"],
        responses=_CONFLICT,
        dependencies=[audited("delivery.retry", "delivery {delivery_id}")],
    )
    async def retry(delivery_id: Id, principal: Operating) -> DeliveryView:
        await operations.retry(delivery_id, principal.tenant_id)
        return shown_delivery(await reader.delivery(delivery_id, principal.tenant_id), principal)

    @router.post(
        "/deliveries/{delivery_id}/discard",
        summary="Give up on a dead, skipped or held delivery",
        tags=["deliveries"],
        responses=_CONFLICT,
        dependencies=[JSON_BODY, audited("delivery.discard", "delivery {delivery_id}")],
    )
    async def discard(
        delivery_id: Id, body: Annotated[DiscardRequest, Body()], principal: Operating
    ) -> DeliveryView:
        await operations.discard(delivery_id, body.reason, principal.tenant_id)
        return shown_delivery(await reader.delivery(delivery_id, principal.tenant_id), principal)

    return router


def endpoint_routes(book: EndpointBook, channels: Mapping[str, Channel]) -> APIRouter:
    """Webhook targets and their secrets. What no delivery may name as its URL gets none."""
    router = APIRouter(prefix="/endpoints", tags=["endpoints"])

    @router.get("", summary="List endpoints, newest first")
    async def list_endpoints(
        principal: Reading,
        limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT)] = 50,
        cursor: Annotated[str | None, Query(max_length=100)] = None,
    ) -> Page[EndpointView]:
        found = await book.list(principal.tenant_id, limit=limit, cursor=cursor)
        return found.each(lambda each: shown_endpoint(each, principal))

    @router.post(
        "",
        status_code=201,
        summary="Give a target a signing secret, shown this once",
        responses=_CONFLICT,
        dependencies=[JSON_BODY, audited("endpoint.create", "endpoint")],
    )
    async def create(body: EndpointRequest, principal: Operating) -> EndpointSecretView:
        own = principal.tenant_id
        if problems := _refusals(body, own, channels):
            raise InvalidRequest(problems)
        return await book.create(
            body.url, channel=body.channel, tenant=body.tenant_id if own is None else own
        )

    @router.post(
        "/{endpoint_id}/rotate",
        summary="A new secret; the old one signs beside it",
        dependencies=[audited("endpoint.rotate", "endpoint {endpoint_id}")],
    )
    async def rotate(endpoint_id: Id, principal: Operating) -> EndpointSecretView:
        return await book.rotate(endpoint_id, principal.tenant_id)

    @router.post(
        "/{endpoint_id}/retire",
        summary="Let only the newest secret sign",
        dependencies=[audited("endpoint.retire", "endpoint {endpoint_id}")],
    )
    async def retire(endpoint_id: Id, principal: Operating) -> EndpointView:
        return await book.retire(endpoint_id, principal.tenant_id)

    @router.post(
        "/{endpoint_id}/enable",
        summary="Call a disabled target again",
        dependencies=[audited("endpoint.enable", "endpoint {endpoint_id}")],
    )
    async def enable(endpoint_id: Id, principal: Operating) -> EndpointView:
        return await book.enable(endpoint_id, principal.tenant_id)

    return router


def _refusals(
    body: EndpointRequest, own: int | None, channels: Mapping[str, Channel]
) -> Sequence[FieldProblem]:
    problems = []
    if body.channel not in channels:
        problems.append(unknown_channel(channels, "/channel"))
    elif body.channel != SIGNED_CHANNEL:
        problems.append(
            FieldProblem("/channel", "not_signed", f"must be {SIGNED_CHANNEL}: no other signs")
        )
    if (signed := channels.get(SIGNED_CHANNEL)) is not None:
        found = signed.check(Draft(body.url, None, None, None, {}, body.tenant_id))
        problems.extend(replace(each, place="/url") for each in found)
    if own is not None and body.tenant_id not in (None, own):
        words = "is not the tenant of the API key"
        problems.append(FieldProblem("/tenant_id", "tenant_mismatch", words))
    return problems
