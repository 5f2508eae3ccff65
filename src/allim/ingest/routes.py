"""Everything that programs of others call, wired together."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter

from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.hub.coalescer import OnCommit
from allim.ingest import alert_routes, github_routes, notify_routes
from allim.ingest.alert_states import AlertStates
from allim.ingest.intake import Intake
from allim.ingest.routing import read_routes
from allim.ingest.settings import IngestSettings

BODY_LIMITS: Mapping[str, int] = {
    alert_routes.ALERTMANAGER: alert_routes.BODY_BYTES,
    alert_routes.GRAFANA: alert_routes.BODY_BYTES,
    github_routes.PATH: github_routes.BODY_BYTES,
}


def ingest_routes(
    database: Database,
    channels: Mapping[str, Channel],
    environment: Environment,
    on_commit: OnCommit,
) -> APIRouter:
    """All of them. Raises ConfigurationError for routes that cannot be."""
    settings = environment.read(IngestSettings)
    intake = Intake(
        database,
        channels,
        read_routes(settings.ingest_routes, channels),
        AlertStates(settings.ingest_remind_seconds),
        on_commit,
    )
    router = APIRouter()
    router.include_router(alert_routes.alert_routes(intake))
    router.include_router(github_routes.github_routes(intake, settings.ingest_github_secret))
    router.include_router(notify_routes.notify_routes(intake))
    return router
