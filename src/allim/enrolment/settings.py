"""How the enrolment sync behaves."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from allim.base.settings import SettingsGroup


class EnrolmentSettings(SettingsGroup):
    """How the enrolment sync behaves. Times are seconds."""

    enrolment_baseline: Literal["each", "summary"] = Field(
        "each",
        description="What the first complete listing of a category is told as: one alert for"
        " `each` record, or one `summary` in all.",
    )
    job_lock_seconds: float = Field(
        120.0,
        ge=3,
        le=3600,
        description="How long a run's lock holds; renewed at a third of it. When a process dies,"
        " the next run may begin after this.",
    )
    enrolment_failed_cooldown_seconds: float = Field(
        1800.0,
        ge=0,
        le=86400 * 7,
        description="A failure of the same kind within this is counted in the alert that is open"
        " already, and sent to nobody again. Changes of records are never held back.",
    )
    enrolment_course_concurrency: int = Field(
        4, ge=1, le=64, description="Courses whose listings are read from the LMS at once."
    )
    enrolment_detail_concurrency: int = Field(
        8, ge=1, le=64, description="Users whose details are asked of the LMS at once."
    )
