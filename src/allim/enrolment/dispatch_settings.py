"""How much one call of the dispatch endpoints sends."""

from __future__ import annotations

from pydantic import Field

from allim.base.settings import SettingsGroup

BATCH_LIMIT = 500


class DispatchSettings(SettingsGroup):
    """How much one call of the dispatch endpoints sends."""

    sheet_dispatch_batch_size: int = Field(
        50,
        ge=1,
        le=BATCH_LIMIT,
        description="Rows that one call of sheet-dispatch writes where it does not say.",
    )
    noti_dispatch_batch_size: int = Field(
        50,
        ge=1,
        le=BATCH_LIMIT,
        description="Notices that one call of notification-dispatch sends where it does not say.",
    )
