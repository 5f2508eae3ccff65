"""HTTP routes of tenants and their money."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from allim.base.errors import FieldProblem, Forbidden, InvalidRequest, NotFound
from allim.hub.audited import audited
from allim.hub.model import MAX_BIGINT
from allim.hub.reading import PAGE_LIMIT
from allim.hub.views import Page
from allim.messaging.tenant_model import (
    CreditRequest,
    CreditView,
    LedgerRow,
    Month,
    TenantChange,
    TenantRequest,
    TenantView,
)
from allim.messaging.tenants import Tenants
from allim.web.access import AccessScope, Principal, requires
from allim.web.bodies import only_json

Id = Annotated[int, Path(ge=1, le=MAX_BIGINT)]
Reading = Annotated[Principal, Depends(requires(AccessScope.READ))]
Administering = Annotated[Principal, Depends(requires(AccessScope.ADMIN))]
Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT)]
Cursor = Annotated[str | None, Query(max_length=100)]
JSON_BODY = Depends(only_json)
KEY_LIMIT = 255
_CSV = "text/csv"
_STATEMENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {_CSV: {"schema": {"type": "string"}}}, "description": "A page, or CSV"}
}


def tenant_routes(tenants: Tenants) -> APIRouter:
    """Open, show, change and credit tenants; their ledgers."""
    router = APIRouter(prefix="/tenants", tags=["tenants"])

    @router.post(
        "",
        status_code=201,
        summary="Open a tenant; the id is your own",
        dependencies=[JSON_BODY, audited("tenant.create", "tenant")],
        responses={409: {"description": "There is one with this id"}},
    )
    async def create(
        body: Annotated[TenantRequest, Body()], principal: Administering, response: Response
    ) -> TenantView:
        _refuse_tenants(principal)
        view = await tenants.create(body)
        response.headers["Location"] = f"/tenants/{view.id}"
        return view

    @router.get("", summary="List tenants by id")
    async def list_tenants(
        principal: Reading, limit: Limit = 50, cursor: Cursor = None
    ) -> Page[TenantView]:
        return await tenants.list(own=principal.tenant_id, limit=limit, cursor=cursor)

    @router.get("/{tenant_id}", summary="One tenant")
    async def show(tenant_id: Id, principal: Reading) -> TenantView:
        _refuse_others(principal, tenant_id)
        return await tenants.show(tenant_id)

    @router.patch(
        "/{tenant_id}",
        summary="Change a tenant",
        dependencies=[JSON_BODY, audited("tenant.change", "tenant {tenant_id}")],
    )
    async def change(
        tenant_id: Id, body: Annotated[TenantChange, Body()], principal: Administering
    ) -> TenantView:
        _refuse_tenants(principal)
        return await tenants.change(tenant_id, body)

    @router.post(
        "/{tenant_id}/credits",
        status_code=201,
        summary="Top up; send an Idempotency-Key and a repeat adds nothing",
        dependencies=[JSON_BODY, audited("tenant.credit", "tenant {tenant_id}")],
        responses={
            200: {"model": CreditView, "description": "An earlier request had written it"},
            409: {"description": "There is not as much to take back"},
        },
    )
    async def credit(
        tenant_id: Id,
        body: Annotated[CreditRequest, Body()],
        principal: Administering,
        response: Response,
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=KEY_LIMIT)] = None,
    ) -> CreditView:
        _refuse_tenants(principal)
        if idempotency_key is not None and not (
            idempotency_key.isascii() and idempotency_key.isprintable()
        ):
            raise InvalidRequest(
                [FieldProblem("Idempotency-Key", "idempotency_key", "must be printable ASCII")]
            )
        view = await tenants.credit(tenant_id, body, idempotency_key=idempotency_key)
        if view.replayed:
            response.status_code = 200
            response.headers["Idempotency-Replayed"] = "true"
        return view

    @router.get(
        "/{tenant_id}/ledger",
        summary="What was paid, newest first; as CSV by Accept or format=csv",
        response_model=Page[LedgerRow],
        responses=_STATEMENT,
    )
    async def ledger(
        tenant_id: Id,
        request: Request,
        principal: Reading,
        month: Annotated[str | None, Query(max_length=20, examples=["2026-11"])] = None,
        wanted_format: Annotated[Literal["json", "csv"] | None, Query(alias="format")] = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Any:
        _refuse_others(principal, tenant_id)
        wanted = None if month is None else Month.parse(month)
        if wanted_format == "csv" or (
            wanted_format is None and _prefers_csv(request.headers.getlist("accept"))
        ):
            await tenants.show(tenant_id)
            name = f"tenant-{tenant_id}-{month or 'all'}.csv"
            return StreamingResponse(
                tenants.statement(tenant_id, wanted),
                media_type=f"{_CSV}; charset=utf-8",
                headers={"Content-Disposition": f'attachment; filename="{name}"'},
            )
        return await tenants.ledger(tenant_id, month=wanted, limit=limit, cursor=cursor)

    return router


def _prefers_csv(accept: Sequence[str]) -> bool:
    kinds = [kind.split(";")[0].strip() for header in accept for kind in header.split(",")]
    return _CSV in kinds and "application/json" not in kinds


def _refuse_tenants(principal: Principal) -> None:
    if principal.tenant_id is not None:
        raise Forbidden("tenant_key", "a tenant's own key cannot open, change or credit tenants")


def _refuse_others(principal: Principal, tenant: int) -> None:
    if principal.tenant_id not in (None, tenant):
        raise NotFound("tenant_not_found", f"there is no tenant {tenant}")
