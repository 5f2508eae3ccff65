"""What a sync is asked for, what it answers, and the words of its tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from allim.base.errors import Conflict

SOURCE = "enrolment-sync"
"""The `source` of every notification that a sync makes, and the beginning of its lock's name."""

MAX_CATEGORY = 2**63 - 1
MAX_USERS = 1_000_000


class TriggerType(StrEnum):
    """Who asked for a run."""

    MANUAL = "MANUAL"
    SCHEDULER = "SCHEDULER"
    RETRY = "RETRY"


class RunStatus(StrEnum):
    """Where a run stands; RUNNING whose lock ran out is dead, and the next run says so."""

    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"


class AlertType(StrEnum):
    """What an alert tells. A record that is missing, or back again, is a CHANGED one."""

    NEW = "NEW"
    CHANGED = "CHANGED"
    FAILED = "FAILED"


class Severity(StrEnum):
    """How much an alert matters."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class SourceType(StrEnum):
    """What a record, or an alert, is about."""

    STATUS = "enrolment_status"
    """A user in a course; its key is ``termId:courseId:userId``."""
    DETAIL = "enrolment_user_detail"
    """A user in a term; its key is ``termId:userId``."""
    CATEGORY = "category"
    """A whole category: its first listing in sum; its key is ``termId``."""
    RUN = "run"
    """Runs that fail; the key is ``termId:group``."""


class SyncRequest(BaseModel):
    """What `POST /jobs/enrolment-sync` takes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    category_id: Annotated[int, Field(ge=1, le=MAX_CATEGORY)] = Field(
        description="The category (term) to look at", examples=[303]
    )
    trigger_type: Annotated[TriggerType, Field(strict=False)] = Field(
        default=TriggerType.MANUAL, description="Kept in run_log, to tell runs apart"
    )
    max_categories: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="Taken, and without effect: category_id names the only one"
    )
    max_users_per_course: Annotated[int, Field(ge=1, le=MAX_USERS)] | None = Field(
        default=None,
        description="The most users looked at in a course; a longer one counts in"
        " `truncated_courses` and misses nobody. No limit where left out: a limit that nobody"
        " asked for would hide changes",
        examples=[500],
    )


class Summary(BaseModel):
    """What a run did, in numbers."""

    model_config = ConfigDict(frozen=True)

    categories_processed: int = 0
    courses_processed: int = Field(default=0, description="Read and stored")
    status_rows_processed: int = Field(default=0, description="Enrolments seen")
    details_processed: int = Field(default=0, description="Users whose detail was seen")
    source_records_upserted: int = Field(default=0, description="Both together; unchanged ones too")
    new_records: int = 0
    changed_records: int = Field(default=0, description="Changed, missing or back again")
    created_alerts: int = 0
    failed_courses: int = 0
    failed_details: int = 0
    truncated_courses: int = Field(
        default=0, description="Longer than max_users_per_course: not all of it was seen"
    )
    missing_records: int = Field(default=0, description="Gone; part of changed_records")


@dataclass(frozen=True, slots=True)
class SyncResult:
    """How a run ended; `error` is what run_log.error_message says, None where it succeeded.

    `warning` is what it says of one that succeeded: what was left out of listings.
    """

    run_id: int
    ok: bool
    summary: Summary
    error: str | None = None
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; `courses` is 0 until the LMS has named them."""

    run_id: int
    courses: int
    courses_done: int
    """Stored or failed."""
    rows: int
    """Enrolments seen."""
    course: str | None = None
    """The name of the course that was done last."""


OnProgress: TypeAlias = Callable[[Progress], None]


class LockActive(Conflict):
    """Another run of this category is under way; the refused call has a FAILED run of its own."""

    def __init__(self, run_id: int, message: str) -> None:
        super().__init__("job_lock_active", message)
        self.run_id = run_id
