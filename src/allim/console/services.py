"""What pages are made of: the features' services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.enrolment.alerts import Alerts
from allim.enrolment.calls import SyncCalls
from allim.enrolment.runs import Runs
from allim.events.reading import EventReader
from allim.events.relaying.operations import OutboxOperator
from allim.hub.audit import AuditLog
from allim.hub.coalescer import OnCommit
from allim.hub.endpoints import EndpointBook
from allim.hub.operations import Operations
from allim.hub.reading import Reader
from allim.hub.replays import Replays
from allim.messaging.suppression import SuppressionList
from allim.messaging.tenants import Tenants
from allim.messaging.tracing import Tracer
from allim.scheduler.schedules import Schedules
from allim.web.keys import ApiKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleServices:
    """Everything that pages read from and act through."""

    database: Database
    on_commit: OnCommit
    environment: Environment
    channels: Mapping[str, Channel]
    keys: ApiKeys
    audit: AuditLog
    reader: Reader
    operations: Operations
    replays: Replays
    endpoints: EndpointBook
    events: EventReader
    event_operator: OutboxOperator
    runs: Runs
    alerts: Alerts
    sync_calls: SyncCalls
    schedules: Schedules
    tenants: Tenants
    tracer: Tracer
    suppressions: SuppressionList
