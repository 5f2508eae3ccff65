"""HTTP routes of the enrolment sync: the job, its runs and its alerts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from allim.enrolment.alerts import AlertFilter, Alerts
from allim.enrolment.calls import SyncCalls
from allim.enrolment.job_answers import JOB_REFUSALS, JobRefused, JobRoute
from allim.enrolment.model import (
    MAX_CATEGORY,
    AlertType,
    LockActive,
    RunStatus,
    Severity,
    Summary,
    SyncRequest,
    TriggerType,
)
from allim.enrolment.runs import RunFilter, Runs
from allim.enrolment.views import AlertView, RunView
from allim.hub.audited import audited
from allim.hub.model import MAX_BIGINT
from allim.hub.reading import PAGE_LIMIT
from allim.hub.views import Page
from allim.web.access import AccessScope, Principal, requires
from allim.web.bodies import only_json

Id = Annotated[int, Path(ge=1, le=MAX_BIGINT)]
_READ = Depends(requires(AccessScope.READ, every_tenant=True))
_Operating = Annotated[Principal, Depends(requires(AccessScope.OPERATE, every_tenant=True))]


class SyncDone(BaseModel):
    """A run that succeeded."""

    ok: bool = Field(default=True, examples=[True])
    summary: Summary
    run_id: int
    warning: str | None = Field(
        default=None,
        description="What was left out of listings, as in run_log.error_message; only there"
        " where something was",
    )


class SyncFailed(BaseModel):
    """A run that failed; `summary` is what it did all the same."""

    ok: bool = Field(default=False, examples=[False])
    error: str = Field(description="As in run_log.error_message")
    summary: Summary
    run_id: int


class SyncLocked(JobRefused):
    """A run that was refused, since another one of its category is under way."""

    run_id: int = Field(description="The FAILED run that records it")


def job_routes(calls: SyncCalls) -> APIRouter:
    """`POST /jobs/enrolment-sync`."""
    router = APIRouter(prefix="/jobs", tags=["enrolment"], route_class=JobRoute)
    answers: dict[int | str, dict[str, Any]] = {
        **JOB_REFUSALS,
        409: {"model": SyncLocked, "description": "Another run of the category is under way"},
        502: {"model": SyncFailed, "description": "The run failed"},
    }

    @router.post(
        "/enrolment-sync",
        summary="Look at a category of the LMS and tell what changed; answers when it has",
        response_model=SyncDone,
        responses=answers,
        dependencies=[Depends(only_json)],
    )
    async def enrolment_sync(body: SyncRequest, _principal: _Operating) -> Response:
        try:
            result = await calls.run(body)
        except LockActive as locked:
            refused = {"ok": False, "error": locked.message, "run_id": locked.run_id}
            return JSONResponse(refused, status_code=409)
        summary = result.summary.model_dump()
        if result.ok:
            warning = {} if result.warning is None else {"warning": result.warning}
            return JSONResponse(
                {"ok": True, "summary": summary, "run_id": result.run_id, **warning}
            )
        failed = {
            "ok": False,
            "error": result.error,
            "summary": summary,
            "run_id": result.run_id,
        }
        return JSONResponse(failed, status_code=502)

    return router


class _Listing(BaseModel):
    # A misspelt filter would otherwise answer with everything.
    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=PAGE_LIMIT)
    cursor: Annotated[str, Field(max_length=100)] | None = None
    category_id: Annotated[int, Field(ge=1, le=MAX_CATEGORY)] | None = None
    since: AwareDatetime | None = Field(default=None, alias="from", description="Included")
    until: AwareDatetime | None = Field(default=None, alias="to", description="Not included")

    def filters(self) -> dict[str, Any]:
        """The filters that were given."""
        return self.model_dump(exclude={"limit", "cursor"}, exclude_none=True)


class RunQuery(_Listing):
    """Query parameters of `GET /runs`; times are those of `started_at`."""

    status: RunStatus | None = None
    trigger_type: TriggerType | None = None


class AlertQuery(_Listing):
    """Query parameters of `GET /alerts`; times are those of `created_at`."""

    alert_type: AlertType | None = None
    severity: Severity | None = None
    resolved: bool | None = None
    run_id: Annotated[int, Field(ge=1, le=MAX_BIGINT)] | None = None


def record_routes(runs: Runs, alerts: Alerts) -> APIRouter:
    """The run log and the alerts."""
    router = APIRouter(tags=["enrolment"])

    @router.get("/runs", summary="List runs of the sync, newest first", dependencies=[_READ])
    async def list_runs(query: Annotated[RunQuery, Query()]) -> Page[RunView]:
        wanted = RunFilter(**query.filters())
        return await runs.list(wanted, limit=query.limit, cursor=query.cursor)

    @router.get("/runs/{run_id}", summary="One run", dependencies=[_READ])
    async def show_run(run_id: Id) -> RunView:
        return await runs.one(run_id)

    @router.get("/alerts", summary="List alerts, newest first", dependencies=[_READ])
    async def list_alerts(query: Annotated[AlertQuery, Query()]) -> Page[AlertView]:
        wanted = AlertFilter(**query.filters())
        return await alerts.list(wanted, limit=query.limit, cursor=query.cursor)

    @router.get("/alerts/{alert_id}", summary="One alert", dependencies=[_READ])
    async def show_alert(alert_id: Id) -> AlertView:
        return await alerts.one(alert_id)

    @router.post(
        "/alerts/{alert_id}/resolve",
        summary="Mark an alert as dealt with",
        dependencies=[audited("alert.resolve", "alert {alert_id}")],
    )
    async def resolve(alert_id: Id, principal: _Operating) -> AlertView:
        return await alerts.resolve(alert_id, by=principal.name)

    return router
