"""The transactions that callers hand in, by type, and our errors for what goes wrong in them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from allim.base.errors import NotInTransaction
from allim.database.transactions import Conversation, converse
from allim.events.errors import MessageSaveFailed, NotAConnection, PublishOutsideTransaction

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Connection as AlchemyConnection
    from sqlalchemy.ext.asyncio import AsyncConnection as AsyncAlchemyConnection
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, scoped_session

Result = TypeVar("Result")

_REASON_LIMIT = 500
_NO_TABLE = "42P01"
_NOT_PREPARED = frozenset({"26000", "42P05"})
"""A prepared statement is missing, or there already: a pooler handed out another connection."""


class AsyncpgConnection(Protocol):
    """An asyncpg connection, of a pool or not."""

    def is_in_transaction(self) -> bool:
        """Whether it is."""

    def fetch(self, query: str, *args: Any) -> Any:
        """Run one statement."""


class DjangoConnection(Protocol):
    """`django.db.connection`, or one of `django.db.connections`."""

    in_atomic_block: bool

    def on_commit(self, func: Any) -> Any:
        """Have it called after the commit."""


if TYPE_CHECKING:
    AsyncTransaction = (
        psycopg.AsyncConnection[Any]
        | AsyncSession
        | async_scoped_session[Any]
        | AsyncAlchemyConnection
        | AsyncpgConnection
    )
    SyncTransaction = (
        psycopg.Connection[Any]
        | Session
        | scoped_session[Any]
        | AlchemyConnection
        | DjangoConnection
    )
    Transaction = SyncTransaction | AsyncTransaction


def within(
    tx: Transaction, begin: Callable[[], Conversation[Result]]
) -> Result | Awaitable[Result]:
    """Lead a conversation in a caller's transaction. Raises MessageSaveFailed and its kinds."""
    try:
        return converse(tx, begin, on_failure=save_failed)
    except NotInTransaction as error:
        raise PublishOutsideTransaction(str(error)) from None
    except TypeError as error:
        raise NotAConnection(str(error)) from None


def save_failed(error: Exception) -> MessageSaveFailed:
    """What the database, its driver or its toolkit said, as ours."""
    sqlstate = _sqlstate(error)
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:_REASON_LIMIT]
    if sqlstate == _NO_TABLE:
        reason += " (has `allim migrate` been run on this database?)"
    elif sqlstate in _NOT_PREPARED:
        reason += " (behind a pooler your driver must not prepare: docs/how-to/tune-postgresql.md)"
    return MessageSaveFailed(f"the database did not take it: {reason}", sqlstate=sqlstate)


def _sqlstate(error: BaseException | None) -> str | None:
    # SQLAlchemy keeps the driver's error as `orig`, Django as the cause.
    while error is not None:
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        if isinstance(state, str):
            return state
        error = getattr(error, "orig", None) or error.__cause__
    return None
