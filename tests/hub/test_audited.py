"""Whatever an operator does over HTTP is on record."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from allim.app import create_app
from allim.base.settings import Environment
from allim.database.pool import Database
from allim.hub.audit import AuditLog
from allim.web.access import AccessScope
from tests.hub.conftest import NOTIFICATION, Api, Start

ON_RECORD_ELSEWHERE = {
    "/jobs/enrolment-sync": "run_log",
    "/jobs/outbox/sheet-dispatch": "the deliveries' attempts",
    "/jobs/outbox/notification-dispatch": "the deliveries' attempts",
    "/jobs/outbox/dispatch": "the deliveries' attempts",
    "/quiet-hours": "the window's own transaction",
    "/quiet-hours/{quiet_hours_id}": "the window's own transaction",
    "/templates": "the template's own transaction",
    "/templates/{code}": "the template's own transaction",
    "/replays": "the replay's own transaction",
    "/replays/{replay_id}/pause": "the replay's own transaction",
    "/replays/{replay_id}/resume": "the replay's own transaction",
    "/replays/{replay_id}/cancel": "the replay's own transaction",
}


def dependencies(dependant: Dependant) -> Iterator[object]:
    for one in dependant.dependencies:
        yield one.call
        yield from dependencies(one)


def scopes(route: APIRoute) -> set[AccessScope]:
    """The scopes that its dependencies ask for."""
    return {
        scope
        for call in dependencies(route.dependant)
        for cell in getattr(call, "__closure__", None) or ()
        if isinstance(cell.cell_contents, tuple)
        for scope in cell.cell_contents
        if isinstance(scope, AccessScope)
    }


def test_every_route_that_operates_is_on_record(database_url: str) -> None:
    app = create_app(Database(database_url), {}, Environment({}))
    routers = [getattr(each, "original_router", None) for each in app.routes]
    routes = [r for router in routers if router for r in router.routes if isinstance(r, APIRoute)]
    changing = [
        route
        for route in routes
        if (route.methods or set()) - {"GET", "HEAD"}
        and scopes(route) & {AccessScope.OPERATE, AccessScope.ADMIN}
    ]
    assert len(changing) > 20
    silent = {
        route.path
        for route in changing
        if not any(getattr(c, "__name__", "") == "keep" for c in dependencies(route.dependant))
    }
    assert silent == set(ON_RECORD_ELSEWHERE)


async def test_who_did_what_and_how_it_ended(start_api: Start, database: Database) -> None:
    api: Api = await start_api(ALLIM_API_KEYS="ops:operate-secret-0123456789:operate+send")
    key = {"Authorization": "Bearer operate-secret-0123456789"}
    made = await api.post("/notifications", json=NOTIFICATION, headers=key)
    number = made.json["deliveries"][0]["id"]
    calls = [
        (f"/deliveries/{number}/retry", None, 409),
        (f"/deliveries/{number}/discard", {}, 422),
        (f"/notifications/{made.json['id']}/cancel", None, 200),
        ("/tenants/7/credits", {"amount": 5}, 403),
    ]
    for path, body, status in calls:
        more = {"headers": key} if body is None else {"headers": key, "json": body}
        assert (await api.post(path, **more)).status == status, path

    entries = (await AuditLog(database).list())[0]

    assert {entry.actor for entry in entries} == {"ops"}
    assert [(e.action, e.subject, e.outcome, e.detail) for e in reversed(entries)] == [
        ("delivery.retry", f"delivery {number}", "refused", {"code": "not_retryable"}),
        ("delivery.discard", f"delivery {number}", "refused", {"code": "invalid_request"}),
        ("notification.cancel", f"notification {made.json['id']}", "done", {}),
        ("tenant.credit", "tenant 7", "refused", {"code": "missing_scope"}),
    ]
