"""What the API shows of runs and alerts."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from allim.enrolment.model import AlertType, RunStatus, Severity, Summary, TriggerType
from allim.hub.views import Moment


class RunView(BaseModel):
    """One run of the sync."""

    id: int
    category_id: int
    trigger_type: TriggerType
    status: RunStatus
    summary: Summary
    total_records: int = Field(description="Enrolments seen")
    changed_records: int
    created_alerts: int
    error_message: str | None = Field(
        description="Why it failed; of one that succeeded what was left out of listings, if any"
    )
    started_at: Moment
    finished_at: Moment | None
    updated_at: Moment


class LockView(BaseModel):
    """A lock on a category, held by the run that is under way."""

    job_name: str
    locked_by: str
    locked_at: Moment
    lock_expires_at: Moment
    run_id: int
    ran_out: bool = Field(description="Nobody renews it: the next run takes it over")


class AlertView(BaseModel):
    """One alert."""

    id: int
    run_id: int
    alert_type: AlertType
    severity: Severity
    source_type: str
    source_id: str
    category_id: int
    course_id: str | None
    user_id: str | None
    revision: int = Field(description="Of the record; the run's id for what is about none")
    title: str
    message: str
    old: dict[str, Any] | None = Field(description="Changed fields as they were")
    new: dict[str, Any] | None = Field(description="Changed fields as they are now")
    occurrences: int = Field(description="How often it happened, counted in one alert")
    notification_id: UUID | None
    resolved: bool
    resolved_at: Moment | None
    resolved_by: str | None
    created_at: Moment
    updated_at: Moment
