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
    ├── Forbidden                 the key's scopes do not cover it
    ├── Conflict                  true of the state now; may change
    ├── IdempotencyMismatch       the key was used with another body
    └── Overloaded                more waits than this process may hold; come again
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


class Forbidden(RequestError):
    """The caller is known, but its key's scopes do not cover what it asked for."""

    status = 403


class Conflict(RequestError):
    """The state of the thing does not allow it now; `problems` names the fields, if any."""

    status = 409

    def __init__(self, code: str, message: str, problems: Sequence[FieldProblem] = ()) -> None:
        super().__init__(code, message)
        self.problems = tuple(problems)


class Overloaded(RequestError):
    """More waits than this process may hold; worth trying again in a moment."""

    status = 503


class IdempotencyMismatch(RequestError):
    """The idempotency key was used before with another body."""

    status = 422

    def __init__(self, key: str) -> None:
        super().__init__(
            "idempotency_mismatch",
            f"Idempotency-Key {key!r} was used before with another body",
        )
