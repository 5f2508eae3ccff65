"""Dead letters of both boxes."""

from __future__ import annotations

from starlette.responses import Response

from allim.console.page import Page
from allim.console.services import ConsoleServices
from allim.console.visit import Visit


def dead_letters_page(_services: ConsoleServices) -> Page:
    """The page and what it does."""
    page = Page("dead_letters")

    @page.get("/dead-letters")
    async def show(visit: Visit) -> Response:
        return visit.render("dead_letters/show.html")

    return page
