"""API keys: which there are, a new one, one revoked."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from allim.base.errors import FieldProblem, InvalidRequest, NotFound
from allim.console.page import Page
from allim.console.services import ConsoleServices
from allim.console.visit import Visit
from allim.hub.audit import record
from allim.web.access import AccessScope
from allim.web.keys import end_key, insert_key, list_keys


def keys_page(services: ConsoleServices) -> Page:
    """The page and what it does."""
    page = Page("keys")
    database, keys = services.database, services.keys

    @page.get("/keys")
    async def show(visit: Visit) -> Response:
        return await listing(visit)

    @page.post("/keys", scope=AccessScope.ADMIN)
    async def create(visit: Visit) -> Response:
        form = visit.form
        try:
            name, scopes = form.text("name") or "", _scopes(form.many("scope"))
            tenant = form.number("tenant_id")
            async with database.transaction() as tx:
                number, token = await insert_key(tx, name, scopes, tenant_id=tenant)
                await record(
                    tx,
                    actor=visit.who.name,
                    action="key.create",
                    subject=f"key {number}",
                    tenant=tenant,
                    detail={"name": name, "scopes": [scope.value for scope in scopes]},
                )
        except InvalidRequest as error:
            return await listing(visit, problems=error.problems)
        await keys.refresh()
        # Not a redirect: the token is shown in this answer and never again.
        return visit.render("keys/created.html", name=name, token=token, is_first=visit.who.local)

    @page.post("/keys/{id:int}/revoke", scope=AccessScope.ADMIN)
    async def revoke(visit: Visit) -> Response:
        number = visit.number("id")

        async def run() -> None:
            async with database.transaction() as tx:
                if not await end_key(tx, number):
                    raise NotFound("key_not_found", visit.t("keys.not_found", number=number))
                await record(tx, actor=visit.who.name, action="key.revoke", subject=f"key {number}")
            await keys.refresh()

        return await visit.act(
            "key.revoke",
            f"key {number}",
            run,
            to="/keys",
            done=visit.t("keys.revoked_one_key", number=number),
            recorded=True,
        )

    async def listing(visit: Visit, problems: tuple[FieldProblem, ...] = ()) -> Response:
        return visit.render(
            "keys/list.html",
            status=422 if problems else 200,
            keys=await list_keys(database),
            scopes=list(AccessScope),
            form=visit.form,
            problems=problems,
        )

    return page


def _scopes(given: Sequence[str]) -> list[AccessScope]:
    try:
        return [AccessScope(scope) for scope in given]
    except ValueError:
        problem = FieldProblem("/scopes", "choice", f"must be among {', '.join(AccessScope)}")
        raise InvalidRequest([problem]) from None
