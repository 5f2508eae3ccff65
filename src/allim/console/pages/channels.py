"""Channels: configured or mock, limits, breaker."""

from __future__ import annotations

from starlette.responses import Response

from allim.console.page import Page
from allim.console.services import ConsoleServices
from allim.console.visit import Visit


def channels_page(_services: ConsoleServices) -> Page:
    """The page and what it does."""
    page = Page("channels")

    @page.get("/channels")
    async def show(visit: Visit) -> Response:
        return visit.render("channels/show.html")

    return page
