"""Settings of Kafka, with the outbox document's names, defaults and meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from allim.base.errors import ConfigurationError
from allim.base.settings import INVALID, Environment, SettingsGroup

EXTRA = "KAFKA_EXTRA_"
"""`KAFKA_EXTRA_SASL_MECHANISM` is librdkafka's `sasl.mechanism`."""

PROMISED = {
    "acks": "KAFKA_ACKS",
    "request.required.acks": "KAFKA_ACKS",
    "bootstrap.servers": "KAFKA_BOOTSTRAP_SERVERS",
    "metadata.broker.list": "KAFKA_BOOTSTRAP_SERVERS",
    "delivery.timeout.ms": "KAFKA_DELIVERY_TIMEOUT_MS",
    "message.timeout.ms": "KAFKA_DELIVERY_TIMEOUT_MS",
    "enable.gapless.guarantee": None,
    "enable.idempotence": None,
    "transactional.id": "KAFKA_TRANSACTIONAL",
    "transaction.timeout.ms": "KAFKA_DELIVERY_TIMEOUT_MS",
}
"""Options that the order of events hangs on; the setting that stands for one, where there is."""

LONGEST_TRANSACTION_MS = 900_000
"""What brokers allow where nobody told them otherwise."""

MESSAGE_MAX_BYTES = 1024 * 1024 + 64 * 1024
"""The largest payload of the outbox with its headers; brokers may take less."""


class KafkaSettings(SettingsGroup):
    """Which Kafka events go to, and how."""

    kafka_bootstrap_servers: str | None = Field(
        None,
        description="host:port, comma-separated. Set: events go to Kafka unless EVENTS_ROUTES says"
        " otherwise.",
    )
    kafka_acks: Literal["all", "-1"] = Field(
        "all", description="The producer is idempotent, and that needs all."
    )
    kafka_retries: int = Field(
        3, ge=1, le=1_000_000, description="How often a request to a broker is repeated."
    )
    kafka_batch_size: int = Field(
        16384, ge=1, le=100_000_000, description="Bytes that one request holds for one partition."
    )
    kafka_buffer_memory: int = Field(
        33554432, ge=1024 * 1024, description="Bytes that may wait in the producer."
    )
    kafka_compression_type: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "lz4", description="How requests are compressed."
    )
    kafka_delivery_timeout_ms: int = Field(
        120_000,
        ge=1000,
        description="When nothing was acknowledged for so long, the producer is built anew and"
        " begins again with what was not. No message gives up by itself: its followers would"
        " overtake it.",
    )
    kafka_request_timeout_ms: int = Field(
        30_000, ge=1, le=900_000, description="How long a broker may take to acknowledge."
    )
    kafka_max_block_ms: int = Field(
        60_000, ge=100, description="How long a full buffer, or an unknown topic, is waited for."
    )
    kafka_transactional: bool = Field(
        False,
        description="Whether batches are sent in transactions, so that the broker takes nothing any"
        " more from a relay whose slots another has taken over. Consumers must then read with"
        " isolation.level=read_committed. The same for every relay.",
    )
    kafka_transactional_id_prefix: str = Field(
        "allim",
        min_length=1,
        max_length=100,
        description="What transactional ids begin with; the relay's name follows. Brokers that"
        " check access must allow it.",
    )


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """The settings, and any option of librdkafka, which wins; but for those of `PROMISED`."""

    settings: KafkaSettings
    extra: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, environment: Environment) -> KafkaOptions:
        """As the environment has them. Raises ConfigurationError."""
        extra: dict[str, str] = {}
        for name, value in environment.beginning(EXTRA).items():
            option = name.lower().replace("_", ".")
            if option in PROMISED:
                raise ConfigurationError(f"{INVALID}{EXTRA}{name}: {_why_not(PROMISED[option])}")
            extra[option] = value
        return cls(environment.read(KafkaSettings), extra)

    def for_librdkafka(self) -> dict[str, str | int | float | bool]:
        """The producer's configuration."""
        settings = self.settings
        promised: dict[str, str | int | float | bool] = {
            # A message that timed out by itself would be overtaken by its followers.
            "message.timeout.ms": 0,
            "enable.gapless.guarantee": True,
        }
        if settings.kafka_transactional:
            # There a message that times out takes the transaction with it, and so its followers.
            timeout = min(settings.kafka_delivery_timeout_ms, LONGEST_TRANSACTION_MS)
            promised = {"transaction.timeout.ms": timeout}
        return {
            "bootstrap.servers": settings.kafka_bootstrap_servers or "",
            "client.id": "allim",
            "acks": settings.kafka_acks,
            "retries": settings.kafka_retries,
            "batch.size": settings.kafka_batch_size,
            "queue.buffering.max.kbytes": settings.kafka_buffer_memory // 1024,
            "compression.type": settings.kafka_compression_type,
            "request.timeout.ms": settings.kafka_request_timeout_ms,
            "message.max.bytes": MESSAGE_MAX_BYTES,
            "enable.idempotence": True,
            # What the Java client does, so that a key finds the partition it had before.
            "partitioner": "murmur2_random",
            # A turn is handed over at once and waited for: lingering gains nothing.
            "linger.ms": 1,
            "reconnect.backoff.max.ms": 1000,
            **self.extra,
            **promised,
        }


def _why_not(setting: str | None) -> str:
    return f"set {setting} instead" if setting else "the order of events hangs on it as it is"
