"""The enrolment sync: runs, alerts, lock, schedules."""

from __future__ import annotations

from starlette.responses import Response

from allim.console.page import Page
from allim.console.services import ConsoleServices
from allim.console.visit import Visit


def enrolment_page(_services: ConsoleServices) -> Page:
    """The page and what it does."""
    page = Page("enrolment")

    @page.get("/enrolment")
    async def show(visit: Visit) -> Response:
        return visit.render("enrolment/show.html")

    return page
