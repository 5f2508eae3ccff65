"""Settings of the relay of events; the polling ones have the outbox document's names."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from allim.base.errors import ConfigurationError
from allim.base.settings import INVALID, SettingsGroup
from allim.relay.ordered.limits import OrderedLimits

MOST_AT_A_TIME = 1000


class OutboxSettings(SettingsGroup):
    """How events are published."""

    events_routes: str | None = Field(
        None,
        description="Which topics go where, as pattern=publisher, comma-separated; the first that"
        " fits counts. Publishers: kafka, log, sqs:<queue URL>. Not set: kafka where"
        " KAFKA_BOOTSTRAP_SERVERS is, else log.",
    )
    outbox_polling_batch_size: int = Field(
        100, ge=1, le=1000, description="Messages taken at a time; up to 1000 under a backlog."
    )
    outbox_polling_max_retries: int = Field(
        3, ge=0, le=1000, description="Retries of a message before it is DEAD."
    )
    outbox_polling_pending_messages_interval: int = Field(
        5000,
        ge=10,
        le=3_600_000,
        description="Milliseconds after which an idle relay looks by itself; wakes cut it short.",
    )
    outbox_polling_failed_messages_interval: int = Field(
        60_000, ge=10, le=86_400_000, description="Milliseconds between the retries of a message."
    )
    outbox_dlq_topic_suffix: str | None = Field(
        None, description="Where dead messages are copied: the topic's name and this, such as .DLQ."
    )
    outbox_on_dead: Literal["continue", "block"] = Field(
        "continue",
        description="Whether a key goes on once a message of it is DEAD, or waits until an operator"
        " replays or discards that.",
    )
    outbox_retention_hours: float = Field(
        168.0, ge=0, le=876_000, description="How long sent messages are kept; 0 for ever."
    )
    relay_slot_lease_seconds: float = Field(
        15.0,
        ge=3,
        le=3600,
        description="When a relay of events dies, others take its slots over after this.",
    )

    def limits(self, grace: float) -> OrderedLimits:
        """What the engine is told; `grace` is how long a stop may take."""
        usual = OrderedLimits()
        poll = self.outbox_polling_pending_messages_interval / 1000
        return OrderedLimits(
            lease=self.relay_slot_lease_seconds,
            batch=self.outbox_polling_batch_size,
            batch_max=max(MOST_AT_A_TIME, self.outbox_polling_batch_size),
            max_retries=self.outbox_polling_max_retries,
            retry_after=self.outbox_polling_failed_messages_interval / 1000,
            poll=poll,
            poll_deaf=min(poll, usual.poll_deaf),
            balance_every=min(usual.balance_every, self.relay_slot_lease_seconds / 5),
            grace=grace,
        )


def parse_routes(text: str | None, default: str) -> list[tuple[str, str]]:
    """Pairs of pattern and publisher; what no pattern fits goes to `default`.

    Raises ConfigurationError.
    """
    routes: list[tuple[str, str]] = []
    for at, entry in enumerate(filter(None, map(str.strip, (text or "").split(","))), 1):
        pattern, separator, publisher = (part.strip() for part in entry.partition("="))
        if not separator or not pattern or not publisher:
            raise ConfigurationError(
                f"{INVALID}EVENTS_ROUTES: entry {at} must be pattern=publisher"
            )
        if publisher not in ("kafka", "log") and not publisher.startswith("sqs:"):
            raise ConfigurationError(
                f"{INVALID}EVENTS_ROUTES: entry {at} names no publisher: kafka, log or"
                " sqs:<queue URL>"
            )
        routes.append((pattern, publisher))
    return [*routes, ("*", default)]
