"""Tenants: balance, ledger, statement."""

from __future__ import annotations

from starlette.responses import Response

from allim.console.page import Page
from allim.console.services import ConsoleServices
from allim.console.visit import Visit


def tenants_page(_services: ConsoleServices) -> Page:
    """The page and what it does."""
    page = Page("tenants")

    @page.get("/tenants")
    async def show(visit: Visit) -> Response:
        return visit.render("tenants/show.html")

    return page
