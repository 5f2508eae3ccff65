"""Notifications: found, watched, sent again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from starlette.responses import Response

from allim.base.errors import Conflict, InvalidRequest
from allim.console.flash import Flash, Mood
from allim.console.page import Page
from allim.console.possible import Possible
from allim.console.searches import EXACT, PERIODS, Reading, Search, read_search
from allim.console.services import ConsoleServices
from allim.console.timelines import timeline, tree
from allim.console.verdicts import explain, verdicts
from allim.console.visit import Visit
from allim.hub import cursors
from allim.hub.audit import Entry
from allim.hub.finding import Finder
from allim.hub.operator_routes import DiscardRequest
from allim.hub.reading import NotificationFilter
from allim.hub.status import NotificationStatus
from allim.hub.views import NotificationSummary
from allim.hub.views import Page as Listing

_NOTHING: Listing[NotificationSummary] = Listing(items=[], next=None)
_PAGE = 50
_ACTIONS_SHOWN = 200


def notifications_page(services: ConsoleServices) -> Page:
    """The page and what it does."""
    page = Page("notifications")
    reader, operations = services.reader, services.operations
    finder = Finder(services.database)
    channels = sorted(services.channels)

    @page.get("/notifications")
    async def search(visit: Visit) -> Response:
        try:
            wanted = Search.of(visit)
            reading = await read_search(wanted, finder)
        except InvalidRequest as error:
            typed = Search(
                q=visit.query("q"),
                channel=visit.query("channel"),
                source=visit.query("source"),
                type=visit.query("type"),
            )
            return listing(visit, typed, Reading(NotificationFilter()), _NOTHING, error)
        if reading.straight_to is not None:
            return visit.redirect(f"/notifications/{reading.straight_to}")
        found = await reader.notifications(reading.wanted, limit=_PAGE, cursor=visit.cursor)
        return listing(visit, wanted, reading, found)

    def listing(
        visit: Visit,
        search: Search,
        reading: Reading,
        found: Listing[NotificationSummary],
        error: InvalidRequest | None = None,
    ) -> Response:
        cut_short = found.next is not None and len(found.items) < _PAGE
        return visit.render(
            "notifications/list.html",
            status=422 if error else 200,
            search=search,
            reading=reading,
            items=found.items,
            following=found.next,
            searched_back_to=_time_of(found.next) if cut_short else None,
            cursor=visit.cursor,
            statuses=list(NotificationStatus),
            channels=channels,
            periods=[*PERIODS, EXACT],
            problems=error.problems if error else (),
        )

    @page.get("/notifications/{id:uuid}")
    async def show(visit: Visit) -> Response:
        notification = await reader.notification(_identity(visit))
        subjects = [
            f"notification {notification.id}",
            *(f"delivery {delivery.id}" for delivery in notification.deliveries),
        ]
        entries = await services.audit.about(subjects, limit=_ACTIONS_SHOWN)
        return visit.render(
            "notifications/detail.html",
            one=notification,
            verdicts=verdicts(notification, visit.t),
            tree=tree(notification.deliveries),
            happenings=timeline(notification, entries),
            possible=Possible.with_(notification),
            explain=lambda code, error: explain(code, error, visit.t),
        )

    @page.post("/notifications/{id:uuid}/cancel")
    async def cancel(visit: Visit) -> Response:
        identity = _identity(visit)
        return await visit.act(
            "notification.cancel",
            f"notification {identity}",
            lambda: operations.cancel(identity),
            to=f"/notifications/{identity}",
            done=visit.t("notifications.canceled_now"),
        )

    @page.post("/notifications/{id:uuid}/retry")
    async def retry(visit: Visit) -> Response:
        return await each(
            visit,
            "delivery.retry",
            lambda possible: possible.retry_all,
            operations.retry,
            only=visit.form.number("delivery"),
        )

    @page.post("/notifications/{id:uuid}/discard")
    async def discard(visit: Visit) -> Response:
        reason = DiscardRequest(reason=visit.form.required("reason")[:1000]).reason
        return await each(
            visit,
            "delivery.discard",
            lambda possible: possible.discard,
            lambda one: operations.discard(one, reason),
            only=visit.form.number("delivery"),
            detail={"reason": reason},
        )

    async def each(
        visit: Visit,
        action: str,
        which: Callable[[Possible], Iterable[int]],
        run: Callable[[int], Awaitable[object]],
        *,
        only: int | None,
        detail: dict[str, str] | None = None,
    ) -> Response:
        """Do it to one delivery, or to all that it can be done to; each is on record by itself."""
        identity = _identity(visit)
        to = f"/notifications/{identity}"
        notification = await reader.notification(identity)
        name = action.partition(".")[2]
        if only is not None:
            if only not in {delivery.id for delivery in notification.deliveries}:
                return visit.redirect(to, Flash(visit.t("notifications.not_its"), Mood.BAD))
            return await visit.act(
                action,
                f"delivery {only}",
                lambda: run(only),
                to=to,
                done=visit.t(f"notifications.{name}_done", n=1),
                detail=detail,
                tenant=notification.tenant_id,
            )
        done, refused = 0, ""
        for one in sorted(which(Possible.with_(notification))):
            entry = Entry(visit.who.name, action, f"delivery {one}", notification.tenant_id, detail)
            try:
                await services.audit.around(entry, partial(run, one))
                done += 1
            except Conflict as conflict:
                refused = conflict.message
        if not done:
            message = refused or visit.t("notifications.nothing_to_do")
            return visit.redirect(to, Flash(message, Mood.BAD))
        return visit.redirect(to, Flash(visit.t(f"notifications.{name}_done", n=done)))

    return page


def _identity(visit: Visit) -> UUID:
    identity: UUID = visit.request.path_params["id"]
    return identity


def _time_of(cursor: str | None) -> datetime | None:
    """When the notification was made that a listing stopped at: its id begins with the time."""
    if cursor is None:
        return None
    milliseconds = cursors.read_notification_cursor(cursor).int >> 80
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
