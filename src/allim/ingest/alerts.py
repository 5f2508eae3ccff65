"""Groups of alerts as Alertmanager's webhook (version 4) and Grafana's bring them.

Fields that later versions add are let pass. Sources: Prometheus, "Alertmanager configuration",
webhook_config; Grafana, "Configure webhook notifications".
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, StringConstraints

from allim.hub.model import Moment

ALERTS_PER_GROUP = 10_000


def _nothing(value: Any) -> Any:
    return {} if value is None else value


Pairs = Annotated[dict[str, str], BeforeValidator(_nothing)]
Short = Annotated[str, StringConstraints(max_length=500)]


class AlertStatus(StrEnum):
    """What became of an alert."""

    FIRING = "firing"
    RESOLVED = "resolved"


class _Incoming(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class Alert(_Incoming):
    """One alert; `fingerprint` is its identity, made of its labels by who sends it."""

    status: AlertStatus
    labels: Pairs
    annotations: Pairs = Field(default_factory=dict)
    starts_at: Moment = Field(alias="startsAt")
    ends_at: str = Field("", alias="endsAt", max_length=64)
    generator_url: str = Field("", alias="generatorURL")
    fingerprint: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    values: dict[str, FiniteFloat | str | bool | None] | None = None
    value_string: str = Field("", alias="valueString")
    silence_url: str = Field("", alias="silenceURL")
    dashboard_url: str = Field("", alias="dashboardURL")
    panel_url: str = Field("", alias="panelURL")
    image_url: str = Field("", alias="imageURL")

    @property
    def name(self) -> str:
        """What the rule is called."""
        return self.labels.get("alertname") or "alert"


class AlertGroup(_Incoming):
    """Alerts that were grouped by whoever sends them."""

    receiver: Short
    status: AlertStatus
    alerts: list[Alert] = Field(max_length=ALERTS_PER_GROUP)
    group_labels: Pairs = Field(default_factory=dict, alias="groupLabels")
    common_labels: Pairs = Field(default_factory=dict, alias="commonLabels")
    common_annotations: Pairs = Field(default_factory=dict, alias="commonAnnotations")
    external_url: str = Field("", alias="externalURL")
    truncated: int = Field(0, alias="truncatedAlerts")

    @property
    def scope(self) -> str:
        """Within what a fingerprint is one alert: two receivers are told of it each."""
        return self.receiver

    def extra(self) -> dict[str, Any]:
        """What only this kind of group says."""
        return {}


class AlertmanagerGroup(AlertGroup):
    """The body of Alertmanager's webhook."""

    version: Literal["4"]


class GrafanaGroup(AlertGroup):
    """The body of Grafana's webhook."""

    version: Short = ""
    org_id: int = Field(0, alias="orgId")
    title: str = ""
    state: Short = ""
    message: str = ""

    @property
    def scope(self) -> str:
        """Organisations are worlds of their own."""
        return f"{self.org_id}:{self.receiver}"

    def extra(self) -> dict[str, Any]:
        """Grafana's own telling, for templates that want it."""
        return {
            "org_id": self.org_id,
            "state": self.state,
            "title": self.title[:1000],
            "message": self.message[:20_000],
        }
