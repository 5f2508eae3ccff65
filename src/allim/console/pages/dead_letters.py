"""Dead letters of both boxes: seen in groups, sent again by a filter, given up."""

from __future__ import annotations

from starlette.responses import Response

from allim.base.errors import FieldProblem, InvalidRequest
from allim.console.flash import Flash, Mood
from allim.console.page import Page
from allim.console.replay_forms import (
    codeless,
    event_selection,
    filled_in,
    reason_of,
    replay_request,
)
from allim.console.searches import read_moment
from allim.console.services import ConsoleServices
from allim.console.visit import Visit
from allim.events.dead_letters import LOOKED_AT, dead_event_groups
from allim.events.reading import EventFilter
from allim.events.views import EventStatus
from allim.hub.audit import Entry
from allim.hub.dead_letters import COUNTED, DeadLetters
from allim.hub.status import DeliveryStatus
from allim.hub.views import ReplayCountView

_EVENTS_AT_ONCE = 10_000
_REPLAYS_SHOWN = 5


def dead_letters_page(services: ConsoleServices) -> Page:
    """The page and what it does."""
    page = Page("dead_letters")
    dead_letters, replays = DeadLetters(services.database), services.replays
    events, operator = services.events, services.event_operator
    channels = sorted(services.channels)

    @page.get("/dead-letters")
    async def show(visit: Visit) -> Response:
        recent = await replays.list(limit=_REPLAYS_SHOWN)
        return visit.render(
            "dead_letters/show.html",
            groups=await dead_letters.groups(),
            event_groups=await dead_event_groups(services.database),
            counted=COUNTED,
            events_looked_at=LOOKED_AT,
            replays=recent.items,
        )

    @page.get("/dead-letters/group")
    async def group(visit: Visit) -> Response:
        status = DeliveryStatus.HELD if visit.query("status") == "HELD" else DeliveryStatus.DEAD
        channel, code = visit.query("channel") or "", visit.query("error_code")
        members, following = await dead_letters.members(status, channel, code, cursor=visit.cursor)
        return visit.render(
            "dead_letters/group.html",
            status_shown=status,
            channel=channel,
            code=code,
            members=members,
            following=following,
            cursor=visit.cursor,
        )

    @page.post("/dead-letters/discard")
    async def discard(visit: Visit) -> Response:
        try:
            request = replay_request(visit.form)
            reason = reason_of(visit.form)
        except InvalidRequest as error:
            return visit.redirect("/dead-letters", Flash(error.problems[0].message, Mood.BAD))
        done = await dead_letters.discard(
            request.filter,
            reason,
            tenant=request.tenant_id,
            by=visit.who.name,
            codeless=codeless(visit.form),
        )
        said = visit.t("dead_letters.discarded", n=done.count)
        more = " " + visit.t("dead_letters.discard_more") if done.more else ""
        return visit.redirect("/dead-letters", Flash(said + more))

    @page.get("/dead-letters/replay")
    async def prepare(visit: Visit) -> Response:
        form = filled_in(visit)
        counted: ReplayCountView | None = None
        problems: tuple[FieldProblem, ...] = ()
        if visit.query("count"):
            try:
                request = replay_request(form)
                counted = await replays.count(request.filter, request.tenant_id)
            except InvalidRequest as error:
                problems = error.problems
        return visit.render(
            "dead_letters/replay.html",
            status=422 if problems else 200,
            form=form,
            counted=counted,
            problems=problems,
            channels=channels,
        )

    @page.post("/dead-letters/replay")
    async def begin(visit: Visit) -> Response:
        try:
            reason_of(visit.form)
            request = replay_request(visit.form)
        except InvalidRequest as error:
            return visit.render(
                "dead_letters/replay.html",
                status=422,
                form=visit.form,
                counted=None,
                problems=error.problems,
                channels=channels,
            )
        job = await replays.create(request, tenant=request.tenant_id, by=visit.who.name)
        return visit.redirect(f"/dead-letters/replays/{job.id}")

    @page.get("/dead-letters/replays")
    async def history(visit: Visit) -> Response:
        found = await replays.list(cursor=visit.cursor)
        return visit.render(
            "dead_letters/replays.html",
            replays=found.items,
            following=found.next,
            cursor=visit.cursor,
        )

    @page.get("/dead-letters/replays/{id:int}")
    async def job(visit: Visit) -> Response:
        return visit.render("dead_letters/job.html", job=await replays.one(visit.number("id")))

    moves = {"pause": replays.pause, "resume": replays.resume, "cancel": replays.cancel}

    @page.post("/dead-letters/replays/{id:int}/{move:str}")
    async def move(visit: Visit) -> Response:
        number, name = visit.number("id"), visit.request.path_params["move"]
        to = f"/dead-letters/replays/{number}"
        if name not in moves:
            return visit.redirect(to)
        return await visit.act(
            f"replay.{name}",
            f"replay {number}",
            lambda: moves[name](number, tenant=None, by=visit.who.name),
            to=to,
            done=visit.t(f"dead_letters.{name}_done"),
            recorded=True,
        )

    @page.get("/dead-letters/events")
    async def topic(visit: Visit) -> Response:
        wanted = EventFilter(
            status=[EventStatus.DEAD],
            topic=visit.query("topic"),
            key=visit.query("key"),
            error=visit.query("error"),
            since=read_moment(visit, "from", visit.query("from")),
            until=read_moment(visit, "to", visit.query("to")),
        )
        found = await events.events(wanted, cursor=visit.cursor)
        return visit.render(
            "dead_letters/events.html",
            wanted=wanted,
            events=found.items,
            following=found.next,
            cursor=visit.cursor,
        )

    @page.post("/dead-letters/events/{move:str}")
    async def act_on_events(visit: Visit) -> Response:
        name = visit.request.path_params["move"]
        runs = {"replay": operator.replay, "discard": operator.discard}
        if name not in runs:
            return visit.redirect("/dead-letters")
        try:
            reason, selection = reason_of(visit.form), event_selection(visit)
        except InvalidRequest as error:
            return visit.redirect("/dead-letters", Flash(error.problems[0].message, Mood.BAD))
        chosen = await operator.chosen(selection)
        ids = chosen[:_EVENTS_AT_ONCE]
        detail = {
            "reason": reason,
            "events": len(ids),
            "topic": selection.topic,
            "key": selection.key,
            "error": selection.error,
            "from": selection.since and selection.since.isoformat(),
            "to": selection.until and selection.until.isoformat(),
        }
        entry = Entry(
            visit.who.name, f"events.{name}", f"topic {selection.topic or '*'}", None, detail
        )
        count = await services.audit.around(entry, lambda: runs[name](ids))
        said = visit.t(f"dead_letters.events_{name}_done", n=count)
        left = len(chosen) - len(ids)
        more = " " + visit.t("dead_letters.events_left", n=left) if left else ""
        return visit.redirect("/dead-letters", Flash(said + more))

    return page
