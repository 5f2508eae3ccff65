"""What is stuck, why, and what mends it."""

from __future__ import annotations

from starlette.responses import Response

from allim.console.page import Page
from allim.console.services import ConsoleServices
from allim.console.visit import Visit


def overview_page(_services: ConsoleServices) -> Page:
    """The page and what it does."""
    page = Page("overview")

    @page.get("/")
    async def show(visit: Visit) -> Response:
        return visit.render("overview/show.html")

    return page
