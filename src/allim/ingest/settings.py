"""Where what comes in goes, and who may bring it."""

from __future__ import annotations

from pydantic import Field, SecretStr

from allim.base.settings import SettingsGroup


class IngestSettings(SettingsGroup):
    """What Alertmanager, Grafana, GitHub and Apprise's clients send, and where it goes."""

    ingest_routes: str | None = Field(
        None,
        description="Where it goes: a JSON list of routes, or the path of a file with one. Not"
        " set: /ingest/* and /notify refuse.",
    )
    ingest_github_secret: SecretStr | None = Field(
        None,
        description="The secret of the webhook that calls /ingest/github. Not set: it refuses.",
    )
    ingest_remind_seconds: float = Field(
        12600.0,
        ge=0,
        le=31_536_000,
        description="An alert that is repeated unchanged is told again only when it was last told"
        " this long ago; 0: never.",
    )
