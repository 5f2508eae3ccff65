"""The jobs of this feature that a schedule can run, and the parameters they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from allim.enrolment.dispatch_settings import BATCH_LIMIT
from allim.enrolment.model import MAX_CATEGORY, MAX_USERS

SYNC_JOB = "enrolment-sync"
DISPATCH_JOB = "outbox-dispatch"


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SyncParameters(_Parameters):
    """What a schedule of `enrolment-sync` says: POST /jobs/enrolment-sync without the trigger."""

    category_id: Annotated[int, Field(ge=1, le=MAX_CATEGORY)]
    max_users_per_course: Annotated[int, Field(ge=1, le=MAX_USERS)] | None = None


class DispatchParameters(_Parameters):
    """What a schedule of `outbox-dispatch` says: the body of POST /jobs/outbox/dispatch."""

    sheet_batch_size: Annotated[int, Field(ge=1, le=BATCH_LIMIT)] | None = None
    notification_batch_size: Annotated[int, Field(ge=1, le=BATCH_LIMIT)] | None = None


JOB_KINDS: Mapping[str, type[BaseModel]] = {
    SYNC_JOB: SyncParameters,
    DISPATCH_JOB: DispatchParameters,
}
"""What can be scheduled."""
