"""Events: by topic and key, and what blocks."""

from __future__ import annotations

from starlette.responses import Response

from allim.console.page import Page
from allim.console.services import ConsoleServices
from allim.console.visit import Visit


def events_page(_services: ConsoleServices) -> Page:
    """The page and what it does."""
    page = Page("events")

    @page.get("/events")
    async def show(visit: Visit) -> Response:
        return visit.render("events/show.html")

    return page
