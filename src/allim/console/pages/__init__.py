"""Every page, in the order of the navigation."""

from __future__ import annotations

from collections.abc import Sequence

from allim.console.page import Page
from allim.console.pages.audit import audit_page
from allim.console.pages.channels import channels_page
from allim.console.pages.dead_letters import dead_letters_page
from allim.console.pages.enrolment import enrolment_page
from allim.console.pages.events import events_page
from allim.console.pages.keys import keys_page
from allim.console.pages.notifications import notifications_page
from allim.console.pages.overview import overview_page
from allim.console.pages.tenants import tenants_page
from allim.console.services import ConsoleServices


def pages_of(services: ConsoleServices) -> Sequence[Page]:
    """The pages, over these services."""
    return [
        overview_page(services),
        notifications_page(services),
        dead_letters_page(services),
        events_page(services),
        enrolment_page(services),
        tenants_page(services),
        channels_page(services),
        keys_page(services),
        audit_page(services),
    ]
