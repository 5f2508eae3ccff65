"""The enrolment sync: its runs and alerts, the locks, the schedules, and a run right now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TypeVar

from starlette.responses import Response

from allim.base.errors import RequestError
from allim.base.validation import validated
from allim.console.flash import Flash, Mood
from allim.console.page import Page
from allim.console.services import ConsoleServices
from allim.console.visit import Visit
from allim.enrolment.alerts import AlertFilter
from allim.enrolment.model import AlertType, RunStatus, Severity, SyncRequest
from allim.enrolment.runs import RunFilter
from allim.enrolment.scheduled import JOB_KINDS, SYNC_JOB
from allim.scheduler.model import DEFAULT_TIMEZONE, ScheduleChange, ScheduleRequest

PATIENCE_SECONDS = 2.0
"""How long a run is waited for, so that one that ends at once can be told at once."""
SHOWN_RUNS = 20

Choice = TypeVar("Choice", bound=StrEnum)


def enrolment_page(services: ConsoleServices) -> Page:
    """The page and what it does."""
    page = Page("enrolment")
    runs, alerts = services.runs, services.alerts

    @page.get("/enrolment")
    async def show(visit: Visit) -> Response:
        wanted = RunFilter(
            status=_choice(RunStatus, visit.query("status")),
            category_id=_number(visit.query("category")),
        )
        listed = await runs.list(wanted, limit=SHOWN_RUNS, cursor=visit.cursor)
        return visit.render(
            "enrolment/show.html",
            runs=listed,
            wanted=wanted,
            cursor=visit.cursor,
            statuses=list(RunStatus),
            locks=await runs.locks(),
            open_alerts=await alerts.list(
                AlertFilter(severity=Severity.HIGH, resolved=False), limit=5
            ),
        )

    @page.post("/enrolment/run")
    async def run_now(visit: Visit) -> Response:
        form = visit.form
        given = {
            "category_id": form.number("category_id"),
            "max_users_per_course": form.number("max_users_per_course"),
        }
        try:
            request = validated(SyncRequest, {k: v for k, v in given.items() if v is not None})
            result = await visit.on_record(
                "sync.run",
                f"category {request.category_id}",
                lambda: services.sync_calls.begin(request, patience=PATIENCE_SECONDS),
                detail=request.model_dump(mode="json", exclude_none=True),
            )
        except RequestError as error:
            return visit.redirect("/enrolment", Flash(error.message, Mood.BAD))
        if result is None:
            return visit.redirect("/enrolment", Flash(visit.t("enrolment.begun")))
        failed = visit.t("enrolment.failed", number=result.run_id)
        ended = visit.t("enrolment.ended", number=result.run_id)
        flash = Flash(ended) if result.ok else Flash(failed, Mood.BAD)
        return visit.redirect(f"/enrolment/runs/{result.run_id}", flash)

    @page.get("/enrolment/runs/{id:int}")
    async def show_run(visit: Visit) -> Response:
        run = await runs.one(visit.number("id"))
        told = await alerts.list(AlertFilter(run_id=run.id), cursor=visit.cursor)
        return visit.render("enrolment/run.html", run=run, alerts=told, cursor=visit.cursor)

    @page.get("/enrolment/alerts")
    async def show_alerts(visit: Visit) -> Response:
        state = visit.query("state")
        wanted = AlertFilter(
            alert_type=_choice(AlertType, visit.query("type")),
            severity=_choice(Severity, visit.query("severity")),
            category_id=_number(visit.query("category")),
            resolved={"open": False, "resolved": True}.get(state or ""),
        )
        return visit.render(
            "enrolment/alerts.html",
            alerts=await alerts.list(wanted, cursor=visit.cursor),
            wanted=wanted,
            state=state,
            types=list(AlertType),
            severities=list(Severity),
            cursor=visit.cursor,
        )

    @page.post("/enrolment/alerts/{id:int}/resolve")
    async def resolve(visit: Visit) -> Response:
        number, run = visit.number("id"), visit.form.number("run")
        return await visit.act(
            "alert.resolve",
            f"alert {number}",
            lambda: alerts.resolve(number, by=visit.who.name),
            to="/enrolment/alerts" if run is None else f"/enrolment/runs/{run}",
            done=visit.t("enrolment.resolved_one", number=number),
        )

    _add_schedules(page, services)
    return page


def _add_schedules(page: Page, services: ConsoleServices) -> None:
    schedules = services.schedules

    @page.get("/enrolment/schedules")
    async def show_schedules(visit: Visit) -> Response:
        return await listing(visit)

    @page.post("/enrolment/schedules")
    async def create(visit: Visit) -> Response:
        form = visit.form
        try:
            job = form.text("job") or SYNC_JOB
            category = form.number("category_id")
            given = {
                "name": form.required("name"),
                "job": job,
                "parameters": {"category_id": category} if category is not None else {},
                "cron": form.required("cron"),
                "timezone": form.text("timezone") or DEFAULT_TIMEZONE,
            }
            request = validated(ScheduleRequest, given)
            await visit.on_record(
                "schedule.create",
                f"schedule {request.name}",
                lambda: schedules.create(request),
                detail=given,
            )
        except RequestError as error:
            return await listing(visit, error)
        done = visit.t("enrolment.schedule_created", name=request.name)
        return visit.redirect("/enrolment/schedules", Flash(done))

    async def change(visit: Visit, what: str, run: Callable[[int], Awaitable[object]]) -> Response:
        number = visit.number("id")
        return await visit.act(
            f"schedule.{what}",
            f"schedule {number}",
            lambda: run(number),
            to="/enrolment/schedules",
            done=visit.t(f"enrolment.schedule_{what}", number=number),
        )

    @page.post("/enrolment/schedules/{id:int}/pause")
    async def pause(visit: Visit) -> Response:
        paused = ScheduleChange(enabled=False)
        return await change(visit, "pause", lambda number: schedules.change(number, paused))

    @page.post("/enrolment/schedules/{id:int}/resume")
    async def resume(visit: Visit) -> Response:
        resumed = ScheduleChange(enabled=True)
        return await change(visit, "resume", lambda number: schedules.change(number, resumed))

    @page.post("/enrolment/schedules/{id:int}/fire")
    async def fire(visit: Visit) -> Response:
        return await change(visit, "fire", schedules.fire)

    @page.post("/enrolment/schedules/{id:int}/remove")
    async def remove(visit: Visit) -> Response:
        return await change(visit, "remove", schedules.remove)

    @page.get("/enrolment/schedules/{id:int}")
    async def show_fires(visit: Visit) -> Response:
        number = visit.number("id")
        return visit.render(
            "enrolment/fires.html",
            schedule=await schedules.one(number),
            fires=await schedules.fires(number, cursor=visit.cursor),
            cursor=visit.cursor,
        )

    async def listing(visit: Visit, error: RequestError | None = None) -> Response:
        return visit.render(
            "enrolment/schedules.html",
            status=error.status if error else 200,
            schedules=await schedules.list(cursor=visit.cursor),
            cursor=visit.cursor,
            form=visit.form,
            jobs=list(JOB_KINDS),
            timezone=DEFAULT_TIMEZONE,
            error=error,
        )


def _choice(kind: type[Choice], given: str | None) -> Choice | None:
    return kind(given) if given in set(kind) else None


def _number(given: str | None) -> int | None:
    return int(given) if given and given.isascii() and given.isdigit() and len(given) < 19 else None
