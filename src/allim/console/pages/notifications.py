"""Notifications: found, watched, sent again."""

from __future__ import annotations

from starlette.responses import Response

from allim.console.page import Page
from allim.console.services import ConsoleServices
from allim.console.visit import Visit


def notifications_page(_services: ConsoleServices) -> Page:
    """The page and what it does."""
    page = Page("notifications")

    @page.get("/notifications")
    async def show(visit: Visit) -> Response:
        return visit.render("notifications/show.html")

    return page
