"""Every setting there is, and the environment that they are read from."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, SecretStr

from allim.base.errors import ConfigurationError
from allim.base.logging import LogSettings
from allim.base.settings import INVALID, Environment, SettingsGroup
from allim.channels.registry import settings_groups as channel_groups
from allim.console.settings import ConsoleSettings
from allim.database.embedded import EmbeddedSettings
from allim.enrolment.dispatch_settings import DispatchSettings
from allim.enrolment.lms.settings import LmsSettings
from allim.enrolment.settings import EnrolmentSettings
from allim.events.encryption import EncryptionSettings
from allim.events.publishers.kafka_settings import KafkaSettings
from allim.events.relaying.settings import OutboxSettings
from allim.hub.digest import DigestSettings
from allim.ingest.settings import IngestSettings
from allim.messaging.receipt_settings import EmailReceiptSettings, ReceiptSettings
from allim.messaging.settings import BalanceSettings, CancellationSettings, QueueSettings
from allim.relay.limits import RelayLimits
from allim.scheduler.settings import SchedulerSettings
from allim.web.settings import AccessSettings

DEAF_POLL_SECONDS = 0.5
"""The longest that a relay waits which cannot hear wakes from other processes."""


class DatabaseSettings(SettingsGroup):
    """Which PostgreSQL."""

    database_url: SecretStr | None = Field(
        None,
        description="postgresql://user:password@host:port/database. Not set: Allim runs a"
        " PostgreSQL of its own under ALLIM_HOME.",
    )
    allim_database_connections: int = Field(
        16,
        ge=4,
        le=1000,
        description="The most connections that one process opens in each of its two pools.",
    )


class RelaySettings(SettingsGroup):
    """How relays claim and wait. Times are seconds."""

    delivery_lease_seconds: float = Field(
        60.0,
        ge=5,
        le=3600,
        description="How long a claim holds; extended while a send is under way. When a relay"
        " dies, its work is taken over after this.",
    )
    delivery_claim_batch: int = Field(
        500, ge=2, le=5000, description="The most deliveries that one claim takes."
    )
    delivery_poll_min_seconds: float = Field(
        0.05,
        gt=0,
        le=60,
        description="How soon an idle relay looks again after work it found by looking.",
    )
    delivery_poll_max_seconds: float = Field(
        5.0, gt=0, le=600, description="The longest that an idle relay waits; wakes cut it short."
    )
    delivery_rescue_seconds: float = Field(
        30.0, gt=0, le=600, description="How often work of relays that died is looked for."
    )
    allim_shutdown_seconds: float = Field(
        20.0, ge=0, le=600, description="How long calls under way may take to end at a stop."
    )
    allim_relay_metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="The port where relay, consumer and scheduler answer /metrics and /health; off"
        " if not set.",
    )
    allim_relay_metrics_host: str = Field(
        "127.0.0.1",
        description="The address of that port. It asks for no key: keep it on a private network.",
    )

    def limits(self) -> RelayLimits:
        """What the engine is told. Raises ConfigurationError for polls that cannot be."""
        if self.delivery_poll_max_seconds < self.delivery_poll_min_seconds:
            raise ConfigurationError(
                "invalid settings: DELIVERY_POLL_MAX_SECONDS is less than DELIVERY_POLL_MIN_SECONDS"
            )
        return RelayLimits(
            lease=self.delivery_lease_seconds,
            claim_batch=self.delivery_claim_batch,
            poll_min=self.delivery_poll_min_seconds,
            poll_max=self.delivery_poll_max_seconds,
            poll_max_deaf=max(
                min(self.delivery_poll_max_seconds, DEAF_POLL_SECONDS),
                self.delivery_poll_min_seconds,
            ),
            rescue_every=self.delivery_rescue_seconds,
            grace=self.allim_shutdown_seconds,
        )


def settings_groups() -> Sequence[type[SettingsGroup]]:
    """Every settings group, in the order of the reference."""
    return [
        DatabaseSettings,
        EmbeddedSettings,
        AccessSettings,
        ConsoleSettings,
        RelaySettings,
        SchedulerSettings,
        OutboxSettings,
        KafkaSettings,
        EncryptionSettings,
        LogSettings,
        LmsSettings,
        EnrolmentSettings,
        DispatchSettings,
        *channel_groups(),
        DigestSettings,
        QueueSettings,
        ReceiptSettings,
        EmailReceiptSettings,
        BalanceSettings,
        CancellationSettings,
        IngestSettings,
    ]


def check(environment: Environment) -> Environment:
    """The same environment; raises ConfigurationError naming all that is wrong with it."""
    wrong, invalid = [], []
    try:
        environment.refuse_unknown(settings_groups())
    except ConfigurationError as error:
        wrong.append(str(error))
    for group in settings_groups():
        try:
            environment.read(group)
        except ConfigurationError as error:
            invalid.append(str(error).removeprefix(INVALID))
    try:
        CancellationSettings.of(environment)
    except ConfigurationError as error:
        invalid.append(str(error).removeprefix(INVALID))
    if invalid:
        wrong.append(INVALID + "; ".join(invalid))
    if wrong:
        raise ConfigurationError("; ".join(wrong))
    return environment
