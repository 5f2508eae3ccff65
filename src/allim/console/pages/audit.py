"""The audit log: who did what, when, and how it ended."""

from __future__ import annotations

from starlette.responses import Response

from allim.console.page import Page
from allim.console.services import ConsoleServices
from allim.console.visit import Visit
from allim.hub.audit import AuditFilter


def audit_page(services: ConsoleServices) -> Page:
    """The page; nothing on it can be changed."""
    page = Page("audit")

    @page.get("/audit")
    async def show(visit: Visit) -> Response:
        wanted = AuditFilter(
            actor=visit.query("actor"), action=visit.query("action"), subject=visit.query("subject")
        )
        entries, following = await services.audit.list(wanted, cursor=visit.cursor)
        return visit.render(
            "audit/list.html",
            entries=entries,
            following=following,
            wanted=wanted,
            cursor=visit.cursor,
        )

    return page
