"""Settings of messaging: the queue, prices, alerts and where cancellations are looked up."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, SecretStr

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment, SettingsGroup

DOCUMENTED_CHECK = "apps.support.messaging.services.is_reservation_cancelled"
"""The function that is called where only `DJANGO_SETTINGS_MODULE` is set."""


class QueueSettings(SettingsGroup):
    """The Amazon SQS queue of messaging jobs."""

    messaging_sqs_queue_name: str = Field(
        "academy-messaging-jobs",
        min_length=1,
        max_length=75,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="The queue that jobs are taken from; its dead letters go to <name>-dlq.",
    )
    messaging_sqs_wait_seconds: int = Field(
        20, ge=1, le=20, description="How long one call waits for jobs (long polling)."
    )
    messaging_sqs_visibility_seconds: int = Field(
        60,
        ge=10,
        le=43200,
        description="How long a job taken from the queue is hidden from other consumers;"
        " extended while it is worked on.",
    )
    messaging_sqs_max_receives: int = Field(
        3, ge=1, le=1000, description="After this many receives a job goes to the dead letters."
    )
    messaging_sqs_concurrency: int = Field(
        4, ge=1, le=32, description="Batches taken at once while the queue is full."
    )
    aws_region: str = Field("ap-northeast-2", description="The region of the queue.")
    aws_endpoint_url: str | None = Field(
        None, description="Another address than Amazon's, for stand-ins and VPC endpoints."
    )
    aws_endpoint_url_sqs: str | None = Field(
        None, description="The same for SQS alone; wins over AWS_ENDPOINT_URL."
    )
    aws_access_key_id: SecretStr | None = Field(
        None, description="Credentials; without them those of the instance's role are used."
    )
    aws_secret_access_key: SecretStr | None = Field(None, description="The secret of that key.")
    aws_session_token: SecretStr | None = Field(
        None, description="The token of temporary credentials."
    )
    messaging_spot_watch: bool = Field(
        False,
        description="On a spot instance: stop receiving when Amazon says that it will be taken.",
    )
    messaging_imds_url: str = Field(
        "http://169.254.169.254", description="Where the instance's metadata are asked for."
    )

    @property
    def endpoint(self) -> str | None:
        """Where SQS is, if not at Amazon's own address."""
        return self.aws_endpoint_url_sqs or self.aws_endpoint_url

    @property
    def dead_letter_queue_name(self) -> str:
        """The queue of dead letters."""
        return f"{self.messaging_sqs_queue_name}-dlq"


class MessageKind(StrEnum):
    """What is paid for."""

    SMS = "SMS"
    LMS = "LMS"
    MMS = "MMS"
    ALIMTALK = "ALIMTALK"


class BalanceSettings(SettingsGroup):
    """What tenants pay for a message, in KRW, and when operators are warned."""

    price_sms: int = Field(20, ge=0, le=1_000_000, description="One SMS, in KRW; 0 is free.")
    price_lms: int = Field(50, ge=0, le=1_000_000, description="One LMS, in KRW.")
    price_mms: int = Field(120, ge=0, le=1_000_000, description="One MMS, in KRW.")
    price_alimtalk: int = Field(15, ge=0, le=1_000_000, description="One Alimtalk, in KRW.")
    messaging_low_balance_krw: int = Field(
        1000,
        ge=0,
        description="Operators are warned when a tenant's balance falls below this; a tenant may"
        " have its own.",
    )
    messaging_alert_channel: str | None = Field(
        None,
        description="The channel that warnings about balances go to (SLACK, EMAIL …); not set:"
        " only the log.",
    )
    messaging_alert_recipient: str | None = Field(
        None, description="Whom they go to; the channel's default where not set."
    )

    def price(self, kind: MessageKind) -> int:
        """KRW for one message of a kind."""
        prices = {
            MessageKind.SMS: self.price_sms,
            MessageKind.LMS: self.price_lms,
            MessageKind.MMS: self.price_mms,
            MessageKind.ALIMTALK: self.price_alimtalk,
        }
        return prices[kind]


class CancellationSettings(SettingsGroup):
    """Where it is looked up, just before a send, whether a reservation was cancelled.

    At most one of the sources may be set. Our own table (`POST /reservations/{id}/cancel`) is
    always asked too.
    """

    cancellation_function: str | None = Field(
        None,
        description="Dotted path of a function, sync or async: reservation id → true if cancelled.",
    )
    cancellation_sql: str | None = Field(
        None,
        description="A statement on Allim's database that answers with those of"
        " %(reservation_ids)s that are cancelled.",
    )
    cancellation_url: str | None = Field(
        None,
        description='A URL with {reservation_id}, asked by GET; answers {"cancelled": true|false}.',
    )
    cancellation_timeout_seconds: float = Field(
        5.0, gt=0, le=60, description="How long one look-up may take."
    )
    django_settings_module: str | None = Field(
        None,
        description="Settings of a Django project: its function"
        f" `{DOCUMENTED_CHECK}` is asked, or that of CANCELLATION_FUNCTION.",
    )

    @classmethod
    def of(cls, environment: Environment) -> CancellationSettings:
        """Read and check. Raises ConfigurationError."""
        settings = environment.read(cls)
        named = [
            name
            for name in ("cancellation_function", "cancellation_sql", "cancellation_url")
            if getattr(settings, name) is not None
        ]
        if len(named) > 1:
            names = ", ".join(name.upper() for name in named)
            raise ConfigurationError(f"only one of these may be set: {names}")
        sql, url = settings.cancellation_sql, settings.cancellation_url
        if sql is not None and "%(reservation_ids)s" not in sql:
            raise ConfigurationError(
                "CANCELLATION_SQL must have %(reservation_ids)s in it, as in: SELECT id FROM"
                " reservation WHERE id = ANY(%(reservation_ids)s) AND status = 'CANCELLED'"
            )
        if url is not None and "{reservation_id}" not in url:
            raise ConfigurationError("CANCELLATION_URL must have {reservation_id} in it")
        return settings
