"""The event outbox: domain events out of a transaction, to Kafka, SQS or the log, in order."""

from allim.events.cloudevents import CloudEvent
from allim.events.errors import OutboxError
from allim.events.event import DomainEvent, RawEvent
from allim.events.inbox import Inbox
from allim.events.publishing import publish
from allim.events.serializers import AvroSerializer, JsonSerializer, ProtobufSerializer

__all__ = [
    "AvroSerializer",
    "CloudEvent",
    "DomainEvent",
    "Inbox",
    "JsonSerializer",
    "OutboxError",
    "ProtobufSerializer",
    "RawEvent",
    "publish",
]
