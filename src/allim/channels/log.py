"""LOG: one line of JSON per delivery on stdout, for trying things out and for log shippers."""

from __future__ import annotations

from collections.abc import Sequence

from allim.base.errors import FieldProblem
from allim.base.settings import Environment
from allim.channels.channel import (
    ChannelServices,
    Configured,
    Draft,
    Message,
    RecipientKind,
)
from allim.channels.json_bytes import json_bytes
from allim.channels.sending import Sending, sending
from allim.relay.outcomes import Outcome
from allim.relay.sender import RecordProviderId, SendingLimits
from allim.relay.work import Work

NAME = "LOG"
DELIVERED = Outcome.delivered()


class LogChannel:
    """Writes deliveries to stdout, a batch in one write."""

    name = NAME
    recipient_kind = RecipientKind.ANY
    only_target: str | None = "stdout"

    def __init__(self, sending: Sending, services: ChannelServices) -> None:
        self.limits = sending.limits
        self._print_line = services.print_line

    def check(self, draft: Draft) -> Sequence[FieldProblem]:
        """Anything can be logged."""
        return ()

    def configured(self) -> Configured:
        """Always live: stdout is what it calls."""
        return Configured("live", "writes lines of JSON to stdout")

    def target(self, content: Message) -> str:
        """There is one."""
        return "stdout"

    async def send(
        self, batch: Sequence[Work[Message]], record: RecordProviderId[Message]
    ) -> Sequence[Outcome]:
        """Write a line for each; a stdout that is closed is our own fault and loses nothing."""
        lines = b"\n".join([_line(work.content) for work in batch])
        try:
            self._print_line(lines.decode())
        except (OSError, ValueError) as error:
            return [Outcome.fault("stdout_failed", type(error).__name__)] * len(batch)
        return [DELIVERED] * len(batch)

    async def reconcile(self, work: Work[Message]) -> Outcome | None:
        """Nobody knows what was written."""
        return None

    async def diagnose(self) -> str | None:
        """Nothing can be wrong before it is tried."""
        return None

    async def close(self) -> None:
        """Nothing is held open."""


def make(environment: Environment, services: ChannelServices) -> LogChannel:
    """Make the channel."""
    limits = SendingLimits(batch=500, concurrency=2)
    return LogChannel(sending(environment, NAME, timeout=10.0, limits=limits), services)


def _line(message: Message) -> bytes:
    return json_bytes(
        {
            "channel": message.channel,
            "delivery_id": message.delivery_id,
            "notification_id": message.notification_id,
            "recipient": message.recipient,
            "type": message.type,
            "source": message.source,
            "title": message.title,
            "message": message.message,
            "data": dict(message.data),
            "payload": dict(message.payload),
            "created_at": message.created_at,
        }
    )
