"""The exception tree of Allim.

AllimError
├── ConfigurationError            a setting is missing, unknown or wrong
├── DatabaseError
│   ├── DatabaseUnavailable       the server cannot be reached, or went away
│   ├── EmbeddedServerError       the built-in PostgreSQL cannot be run here
│   ├── SchemaError               the schema is older or newer than the code
│   └── NotInTransaction          a write was asked for outside a transaction
└── RequestError                  what a caller asked for cannot be done
    ├── InvalidRequest            one or more fields are wrong; lists all of them
    ├── NotFound
    ├── Conflict                  true of the state now; may change
    └── IdempotencyMismatch       the key was used with another body
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class AllimError(Exception):
    """Any error that Allim raises on purpose."""


class ConfigurationError(AllimError):
    """A setting is missing, unknown or wrong."""


class DatabaseError(AllimError):
    """The database cannot do what was asked of it."""


class DatabaseUnavailable(DatabaseError):
    """The database server cannot be reached, or went away."""


class EmbeddedServerError(DatabaseError):
    """The built-in PostgreSQL cannot be run here."""


class SchemaError(DatabaseError):
    """The database schema is older or newer than this version of Allim."""


class NotInTransaction(DatabaseError):
    """A write that belongs to the caller's transaction was asked for outside one."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing wrong with one field.

    `place` is a JSON pointer into the body (``/deliveries/0/recipient``), or the
    name of a query parameter or header.
    """

    place: str
    code: str
    message: str


class RequestError(AllimError):
    """What a caller asked for cannot be done; `code` is stable, `status` is the HTTP status."""

    status = 400

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class InvalidRequest(RequestError):
    """One or more fields are wrong; `problems` lists every one of them."""

    status = 422

    def __init__(
        self,
        problems: Sequence[FieldProblem],
        *,
        code: str = "invalid_request",
        message: str | None = None,
    ) -> None:
        self.problems = tuple(problems)
        super().__init__(code, message or "; ".join(f"{p.place}: {p.message}" for p in problems))


class NotFound(RequestError):
    """There is no such thing, or the caller may not know of it."""

    status = 404


class Conflict(RequestError):
    """The state of the thing does not allow it now."""

    status = 409


class IdempotencyMismatch(RequestError):
    """The idempotency key was used before with another body."""

    status = 422

    def __init__(self, key: str) -> None:
        super().__init__(
            "idempotency_mismatch",
            f"Idempotency-Key {key!r} was used before with another body",
        )
