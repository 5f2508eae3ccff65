"""Tenants: their balances, what was paid, and top-ups."""

from __future__ import annotations

import secrets
from typing import Any

from starlette.responses import Response, StreamingResponse

from allim.base.errors import RequestError
from allim.base.validation import validated
from allim.console.flash import Flash, Mood
from allim.console.page import Page
from allim.console.services import ConsoleServices
from allim.console.visit import SECURITY_HEADERS, Visit
from allim.messaging.tenant_model import CreditRequest, Month, TenantRequest
from allim.web.access import AccessScope


def tenants_page(services: ConsoleServices) -> Page:
    """The page and what it does."""
    page = Page("tenants")
    tenants = services.tenants

    @page.get("/tenants")
    async def show(visit: Visit) -> Response:
        return await listing(visit)

    @page.post("/tenants", scope=AccessScope.ADMIN)
    async def create(visit: Visit) -> Response:
        form = visit.form
        try:
            given: dict[str, Any] = {
                "id": form.number("id"),
                "name": form.text("name"),
                "balance": form.number("balance") or 0,
                "sender": form.text("sender"),
                "kakao_pf_id": form.text("kakao_pf_id"),
                "low_balance_krw": form.number("low_balance_krw"),
            }
            request = validated(TenantRequest, given)
            await visit.on_record(
                "tenant.create",
                f"tenant {request.id}",
                lambda: tenants.create(request),
                tenant=request.id,
                detail={"name": request.name, "balance": request.balance},
            )
        except RequestError as error:
            return await listing(visit, error)
        done = visit.t("tenants.created", name=request.name)
        return visit.redirect(f"/tenants/{request.id}", Flash(done))

    @page.get("/tenants/{id:int}")
    async def show_one(visit: Visit) -> Response:
        tenant = await tenants.show(visit.number("id"))
        month = visit.query("month")
        return visit.render(
            "tenants/one.html",
            tenant=tenant,
            month=month,
            ledger=await tenants.ledger(tenant.id, month=_month(month), cursor=visit.cursor),
            cursor=visit.cursor,
            # The form's own: sent twice by a nervous finger, it adds once.
            once=secrets.token_hex(16),
        )

    @page.post("/tenants/{id:int}/credits", scope=AccessScope.ADMIN)
    async def credit(visit: Visit) -> Response:
        number, form = visit.number("id"), visit.form
        back = f"/tenants/{number}"
        try:
            request = validated(
                CreditRequest, {"amount": form.number("amount"), "note": form.text("note")}
            )
            made = await visit.on_record(
                "tenant.credit",
                f"tenant {number}",
                lambda: tenants.credit(
                    number, request, idempotency_key=f"console:{form.required('once')}"
                ),
                tenant=number,
                detail={"amount": request.amount, "note": request.note},
            )
        except RequestError as error:
            return visit.redirect(back, Flash(error.message, Mood.BAD))
        done = visit.t(
            "tenants.credited", amount=f"{made.amount:,}", balance=f"{made.balance_after:,}"
        )
        return visit.redirect(back, Flash(done))

    @page.get("/tenants/{id:int}/statement.csv")
    async def statement(visit: Visit) -> Response:
        tenant = await tenants.show(visit.number("id"))
        month = visit.query("month")
        name = f"tenant-{tenant.id}-{month or 'all'}.csv"
        return StreamingResponse(
            tenants.statement(tenant.id, _month(month)),
            media_type="text/csv; charset=utf-8",
            headers={
                **SECURITY_HEADERS,
                "Content-Disposition": f'attachment; filename="{name}"',
            },
        )

    async def listing(visit: Visit, error: RequestError | None = None) -> Response:
        return visit.render(
            "tenants/list.html",
            status=error.status if error else 200,
            tenants=await tenants.list(own=None, cursor=visit.cursor),
            cursor=visit.cursor,
            form=visit.form,
            error=error,
        )

    return page


def _month(given: str | None) -> Month | None:
    return None if given is None else Month.parse(given)
