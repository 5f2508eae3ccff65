"""What goes wrong with events.

OutboxError
├── MessageSaveFailed               the database did not take the events; `sqlstate` says why
│   ├── PublishOutsideTransaction   there is no transaction that the events could belong to
│   └── NotAConnection              what was handed in is no connection that Allim knows
├── MessageSerializationFailed      an event cannot be made into bytes
│   ├── InvalidEvent                its topic, key or headers cannot be stored or sent
│   ├── PayloadTooLarge             its payload is over the limit
│   └── SerializerUnavailable       the library of its format is not installed
├── MessageSendFailed               a broker did not take a message
├── MessageProcessingFailed         a message cannot be worked on
│   └── DecryptionFailed            it was changed, or belongs to another event
├── MaxRetriesExceeded              a message was tried as often as may be
└── OutboxSystemError               our own fault or the operator's, never the message's
    └── EncryptionKeyMissing        a key that is needed is not in the key ring, or another one is

Where publishing fails, nothing of that call is stored.
"""

from __future__ import annotations

from allim.base.errors import AllimError, NotInTransaction


class OutboxError(AllimError):
    """Anything that goes wrong with events."""


class MessageSaveFailed(OutboxError):
    """The database did not take the events; the driver's own error is the cause.

    `sqlstate` is PostgreSQL's code for it, where it said one: 40001 and 40P01 mean that the
    whole transaction is worth another try.
    """

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class PublishOutsideTransaction(MessageSaveFailed, NotInTransaction):
    """There is no transaction that the events could belong to."""


class NotAConnection(MessageSaveFailed, TypeError):
    """What was handed in is no connection that Allim knows."""


class MessageSerializationFailed(OutboxError):
    """An event cannot be made into bytes."""


class InvalidEvent(MessageSerializationFailed):
    """The topic, key or headers of an event cannot be stored or sent."""


class PayloadTooLarge(MessageSerializationFailed):
    """The payload of an event is over the limit."""


class SerializerUnavailable(MessageSerializationFailed):
    """The library of an event's format is not installed."""


class MessageSendFailed(OutboxError):
    """A broker did not take a message."""


class MessageProcessingFailed(OutboxError):
    """A message cannot be worked on."""


class DecryptionFailed(MessageProcessingFailed):
    """A stored payload was changed, or belongs to another event or topic."""


class MaxRetriesExceeded(OutboxError):
    """A message was tried as often as may be."""


class OutboxSystemError(OutboxError):
    """Our own fault or the operator's, never the message's."""


class EncryptionKeyMissing(OutboxSystemError):
    """A key that is needed is not in `EVENTS_ENCRYPTION_KEYS`, or another is under its name."""
