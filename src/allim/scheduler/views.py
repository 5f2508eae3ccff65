"""What the API shows of schedules and their fires."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from allim.hub.views import Moment
from allim.scheduler.fires import FireStatus


class FireView(BaseModel):
    """One time that a schedule fired, or should have."""

    id: int
    schedule_id: int
    due_at: Moment = Field(description="The slot; for what was asked for, when that was")
    cause: str = Field(description="`slot`, or `request` for what somebody asked for")
    status: FireStatus
    run_id: int | None = Field(description="The run in /runs that it made, if any")
    error: str | None = Field(description="Why it failed, was skipped or missed")
    worker: str | None
    attempts: int = Field(description="More than 1 where a process ended while it ran")
    started_at: Moment | None
    finished_at: Moment | None


class ScheduleView(BaseModel):
    """One schedule."""

    id: int
    name: str
    job: str
    parameters: dict[str, Any]
    cron: str
    timezone: str
    enabled: bool
    next_fire_at: Moment | None = Field(description="Null while it is paused")
    overdue_since: Moment | None = Field(
        description="A slot that no scheduler has come to; set for long where none runs"
    )
    last_fire: FireView | None
    created_at: Moment
    updated_at: Moment
