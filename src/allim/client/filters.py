"""What listings and replays may be narrowed by."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypedDict
from uuid import UUID


class NotificationFilters(TypedDict, total=False):
    """Filters of `notifications`; every one that is given must fit."""

    status: Sequence[str]
    source: str
    type: str
    channel: str
    recipient: str
    tenant_id: int
    since: datetime
    until: datetime
    q: str


class DeliveryFilters(TypedDict, total=False):
    """Filters of `deliveries`; every one that is given must fit."""

    status: Sequence[str]
    channel: str
    recipient: str
    notification_id: UUID | str
    error_code: str
    tenant_id: int
    provider_id: str
    provider_message_id: str
    row_key: str


class ReplayFilters(TypedDict, total=False):
    """Filters of `replay`; every one that is given must fit."""

    status: Sequence[str]
    channel: str
    error_code: str
    recipient: str
    source: str
    type: str
    notification_id: UUID | str
    since: datetime
    until: datetime
