"""Statements in a caller's own transaction, whichever driver or toolkit it came with.

Takes psycopg connections (sync and async), SQLAlchemy's Session, scoped_session, Connection,
AsyncSession, async_scoped_session and AsyncConnection, asyncpg connections, and Django's
connections. None of them but psycopg is imported: whoever hands one in has done that. Nothing
here ever begins, commits or rolls back.
"""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import Awaitable, Callable, Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from allim.base.errors import AllimError, NotInTransaction

Rows = Sequence[Sequence[Any]]
Result = TypeVar("Result")
OnFailure = Callable[[Exception], Exception]
"""Makes the error to be raised of what a driver raised."""

PARAMETER = "batch"
"""The one parameter that statements of a conversation may have: a JSON document as text."""

_AFTER_COMMIT = "allim after commit"
_ASYNCPG = frozenset({"asyncpg.Connection", "asyncpg.PoolConnectionProxy"})
_DJANGO = frozenset({"django.BaseDatabaseWrapper", "django.ConnectionProxy"})
_ASYNC_SQLALCHEMY = frozenset({"sqlalchemy.AsyncSession", "sqlalchemy.AsyncConnection"})
_ASYNC_SCOPED = "sqlalchemy.async_scoped_session"
_SQLALCHEMY = frozenset(
    {"sqlalchemy.Session", "sqlalchemy.Connection", "sqlalchemy.scoped_session"}
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One statement of a conversation, with its one JSON parameter."""

    statement: LiteralString
    batch: str


@dataclass(frozen=True, slots=True)
class Reckoning:
    """Work between two statements that takes a while: it is answered with what `call` returns."""

    call: Callable[[], Any]


Conversation = Generator[Ask, Rows, Result]
"""What is to be said to a database, by whoever holds the connection, sync or async."""
Deliberation = Generator[Ask | Reckoning, Any, Result]
"""A conversation with some reckoning in between."""


def converse(
    tx: Any, begin: Callable[[], Deliberation[Result]], *, on_failure: OnFailure | None = None
) -> Result | Awaitable[Result]:
    """Lead a conversation in the caller's transaction: its result, awaitable where `tx` is async.

    Reckonings run in the caller's thread; where `tx` is async in another one, so that its event
    loop goes on meanwhile.

    A session's own pending changes are flushed first; what goes wrong with those is raised as
    it is. What goes wrong with our statements is raised as `on_failure` makes it.

    Raises NotInTransaction when no transaction is open and none would be begun by the first
    statement, and TypeError for what is no connection.
    """
    execute, is_async = _executor(tx, on_failure)
    if is_async:
        return _converse_async(execute, begin())
    conversation = begin()
    try:
        ask = next(conversation)
        while True:
            answer = ask.call() if isinstance(ask, Reckoning) else execute(ask)
            ask = conversation.send(answer)
    except StopIteration as end:
        result: Result = end.value
        return result


def execute(tx: Any, statement: LiteralString, batch: str) -> Rows | Awaitable[Rows]:
    """Run one statement with its JSON parameter; its rows, awaitable where `tx` is async."""

    def begin() -> Conversation[Rows]:
        return (yield Ask(statement, batch))

    return converse(tx, begin)


def after_commit(tx: Any, tell: Callable[[Collection[str]], None], words: Collection[str]) -> bool:
    """Have `tell` called with the words once the caller's transaction is committed.

    Only some toolkits say when that is: sessions of SQLAlchemy and Django's connections do
    (True); drivers and SQLAlchemy's Connection do not (False). `tell` may be told too much,
    of what was rolled back, and must not raise.
    """
    ancestry = _ancestry(type(tx))
    if ancestry & _DJANGO:
        tx.on_commit(partial(tell, words))
        return True
    session = tx
    if ancestry & {_ASYNC_SCOPED, "sqlalchemy.scoped_session"}:
        session = tx.registry()
    session = getattr(session, "sync_session", session)
    if "sqlalchemy.Session" not in _ancestry(type(session)):
        return False
    if _AFTER_COMMIT not in session.info:
        importlib.import_module("sqlalchemy.event").listen(session, "after_commit", _on_commit)
    _, pending = session.info.setdefault(_AFTER_COMMIT, (tell, set()))
    session.info[_AFTER_COMMIT] = (tell, pending.union(words))
    return True


def _on_commit(session: Any) -> None:
    # A savepoint that is released is told of in the same way.
    if not session.in_nested_transaction():
        tell, words = session.info[_AFTER_COMMIT]
        if words:
            session.info[_AFTER_COMMIT] = (tell, set())
            tell(words)


async def _converse_async(
    execute: Callable[[Ask], Awaitable[Rows]], conversation: Deliberation[Result]
) -> Result:
    try:
        ask = next(conversation)
        while True:
            if isinstance(ask, Reckoning):
                ask = conversation.send(await asyncio.to_thread(ask.call))
            else:
                ask = conversation.send(await execute(ask))
    except StopIteration as end:
        result: Result = end.value
        return result


def _executor(tx: Any, on_failure: OnFailure | None) -> tuple[Callable[[Ask], Any], bool]:
    if isinstance(tx, psycopg.Connection):
        _check_psycopg(tx)
        return lambda ask: _run_psycopg(tx, ask, on_failure), False
    if isinstance(tx, psycopg.AsyncConnection):
        _check_psycopg(tx)
        return lambda ask: _run_psycopg_async(tx, ask, on_failure), True
    ancestry = _ancestry(type(tx))
    if ancestry & _ASYNCPG:
        with _failing(on_failure):
            if not tx.is_in_transaction():
                raise _not_in_transaction()
        return lambda ask: _run_asyncpg(tx, ask, on_failure), True
    if _ASYNC_SCOPED in ancestry:
        tx, ancestry = tx.registry(), _ASYNC_SQLALCHEMY
    if ancestry & _ASYNC_SQLALCHEMY:
        if getattr(tx, "sync_connection", tx) is None:
            raise _not_in_transaction()  # a connection that nobody has awaited yet
        return lambda ask: tx.run_sync(_run_sqlalchemy, ask, on_failure), True
    if ancestry & _SQLALCHEMY:
        return lambda ask: _run_sqlalchemy(tx, ask, on_failure), False
    if ancestry & _DJANGO:
        _check_django(tx)
        return lambda ask: _run_django(tx, ask, on_failure), False
    raise TypeError(
        f"{type(tx).__module__}.{type(tx).__qualname__} is no connection of psycopg, asyncpg,"
        " SQLAlchemy or Django"
    )


def _ancestry(kind: type[Any]) -> frozenset[str]:
    return frozenset(f"{each.__module__.split('.')[0]}.{each.__name__}" for each in kind.__mro__)


@contextmanager
def _failing(on_failure: OnFailure | None) -> Iterator[None]:
    try:
        yield
    except AllimError:
        raise
    except Exception as error:  # Of any driver: whoever asked says what becomes of it.
        if on_failure is None:
            raise
        raise on_failure(error) from error


def _run_psycopg(tx: psycopg.Connection[Any], ask: Ask, on_failure: OnFailure | None) -> Rows:
    with _failing(on_failure), tx.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
        return cursor.execute(ask.statement, {PARAMETER: ask.batch}).fetchall()


async def _run_psycopg_async(
    tx: psycopg.AsyncConnection[Any], ask: Ask, on_failure: OnFailure | None
) -> Rows:
    with _failing(on_failure):
        async with tx.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
            await cursor.execute(ask.statement, {PARAMETER: ask.batch})
            return await cursor.fetchall()


def _check_psycopg(tx: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    # Without autocommit the first statement begins a transaction, which its owner must commit.
    if tx.autocommit and tx.info.transaction_status == TransactionStatus.IDLE:
        raise _not_in_transaction()


async def _run_asyncpg(tx: Any, ask: Ask, on_failure: OnFailure | None) -> Rows:
    with _failing(on_failure):
        rows: Rows = await tx.fetch(_NAMED.sub("$1", ask.statement), ask.batch)
        return rows


def _run_sqlalchemy(tx: Any, ask: Ask, on_failure: OnFailure | None) -> Rows:
    # The caller has imported it, or there would be no `tx`.
    text = importlib.import_module("sqlalchemy").text
    is_session = hasattr(tx, "flush")
    if is_session:
        # So that a failing insert of the caller's own fails here and as its own.
        tx.flush()
    with _failing(on_failure):
        connection = tx.connection() if is_session else tx
        if _is_autocommit(connection):
            raise _not_in_transaction()
        rows: Rows = connection.execute(
            text(_NAMED.sub(f":{PARAMETER}", ask.statement)), {PARAMETER: ask.batch}
        ).all()
        return rows


def _is_autocommit(connection: Any) -> bool:
    level = connection.get_execution_options().get("isolation_level")
    return "AUTOCOMMIT" in (level, getattr(connection, "default_isolation_level", None)) or bool(
        getattr(connection.connection.dbapi_connection, "autocommit", False)
    )


def _check_django(tx: Any) -> None:
    if tx.vendor != "postgresql":
        raise TypeError(f"Django's connection {tx.alias!r} is to {tx.vendor}, not to PostgreSQL")
    if not tx.in_atomic_block:
        raise _not_in_transaction()


def _run_django(tx: Any, ask: Ask, on_failure: OnFailure | None) -> Rows:
    with _failing(on_failure), tx.cursor() as cursor:
        cursor.execute(ask.statement, {PARAMETER: ask.batch})
        rows: Rows = cursor.fetchall()
        return rows


_NAMED = re.compile(rf"%\({PARAMETER}\)s")


def _not_in_transaction() -> NotInTransaction:
    return NotInTransaction(
        "this connection is in no transaction: begin one, so that what is written here is"
        " committed with what you write, or not at all"
    )
