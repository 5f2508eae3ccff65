"""How the scheduler behaves."""

from __future__ import annotations

from pydantic import Field

from allim.base.settings import SettingsGroup


class SchedulerSettings(SettingsGroup):
    """Whether `allim up` runs schedules by itself."""

    scheduler_enabled: bool = Field(
        True,
        description="Whether `allim up` runs what `allim schedule` lists. Set it to false where"
        " `allim schedule run` is a process of its own, or another scheduler calls /jobs/….",
    )
