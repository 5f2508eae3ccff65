"""Statements in a caller's own transaction, whichever driver or toolkit it came with.

Takes psycopg connections (sync and async), SQLAlchemy's Session, Connection, AsyncSession
and AsyncConnection, and asyncpg connections. None of them but psycopg is imported: whoever hands
one in has done that. Nothing here ever begins, commits or rolls back.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from allim.base.errors import NotInTransaction

Rows = Sequence[Sequence[Any]]
Result = TypeVar("Result")

PARAMETER = "batch"
"""The one parameter that statements of a conversation may have: a JSON document as text."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One statement of a conversation, with its one JSON parameter."""

    statement: LiteralString
    batch: str


Conversation = Generator[Ask, Rows, Result]
"""What is to be said to a database, by whoever holds the connection, sync or async."""


def converse(tx: Any, begin: Callable[[], Conversation[Result]]) -> Result | Awaitable[Result]:
    """Lead a conversation in the caller's transaction: its result, awaitable where `tx` is async.

    Raises NotInTransaction when no transaction is open and none would be begun by the first
    statement, and TypeError for what is no connection.
    """
    execute, is_async = _executor(tx)
    if is_async:
        return _converse_async(execute, begin())
    conversation = begin()
    try:
        ask = next(conversation)
        while True:
            ask = conversation.send(execute(ask))
    except StopIteration as end:
        result: Result = end.value
        return result


def execute(tx: Any, statement: LiteralString, batch: str) -> Rows | Awaitable[Rows]:
    """Run one statement with its JSON parameter; its rows, awaitable where `tx` is async."""

    def begin() -> Conversation[Rows]:
        return (yield Ask(statement, batch))

    return converse(tx, begin)


async def _converse_async(
    execute: Callable[[Ask], Awaitable[Rows]], conversation: Conversation[Result]
) -> Result:
    try:
        ask = next(conversation)
        while True:
            ask = conversation.send(await execute(ask))
    except StopIteration as end:
        result: Result = end.value
        return result


def _executor(tx: Any) -> tuple[Callable[[Ask], Any], bool]:
    if isinstance(tx, psycopg.Connection):
        _check_psycopg(tx)
        return lambda ask: tx.execute(ask.statement, {PARAMETER: ask.batch}).fetchall(), False
    if isinstance(tx, psycopg.AsyncConnection):
        _check_psycopg(tx)
        return _psycopg_async(tx), True
    ancestry = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(tx).__mro__}
    if "asyncpg.Connection" in ancestry or "asyncpg.PoolConnectionProxy" in ancestry:
        if not tx.is_in_transaction():
            raise _not_in_transaction()
        return lambda ask: tx.fetch(_numbered(ask.statement), ask.batch), True
    if ancestry & {"sqlalchemy.AsyncSession", "sqlalchemy.AsyncConnection"}:
        return _sqlalchemy_async(tx), True
    if ancestry & {"sqlalchemy.Session", "sqlalchemy.Connection", "sqlalchemy.scoped_session"}:
        return lambda ask: _run_sqlalchemy(tx, ask), False
    raise TypeError(
        f"{type(tx).__module__}.{type(tx).__qualname__} is no connection of psycopg, asyncpg or"
        " SQLAlchemy"
    )


def _psycopg_async(tx: psycopg.AsyncConnection[Any]) -> Callable[[Ask], Awaitable[Rows]]:
    async def execute(ask: Ask) -> Rows:
        return await (await tx.execute(ask.statement, {PARAMETER: ask.batch})).fetchall()

    return execute


def _check_psycopg(tx: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    # Without autocommit the first statement begins a transaction, which its owner must commit.
    if tx.autocommit and tx.info.transaction_status == TransactionStatus.IDLE:
        raise _not_in_transaction()


def _sqlalchemy_async(tx: Any) -> Callable[[Ask], Awaitable[Rows]]:
    async def execute(ask: Ask) -> Rows:
        rows: Rows = await tx.run_sync(_run_sqlalchemy, ask)
        return rows

    return execute


def _run_sqlalchemy(tx: Any, ask: Ask) -> Rows:
    # The caller has imported it, or there would be no `tx`.
    text = importlib.import_module("sqlalchemy").text
    # A session flushes first, so that a failing insert of its own fails here and not later.
    connection = tx
    if hasattr(tx, "flush"):
        tx.flush()
        connection = tx.connection()
    if _is_autocommit(connection):
        raise _not_in_transaction()
    rows: Rows = connection.execute(
        text(ask.statement.replace(f"%({PARAMETER})s", f":{PARAMETER}")), {PARAMETER: ask.batch}
    ).all()
    return rows


def _is_autocommit(connection: Any) -> bool:
    level = connection.get_execution_options().get("isolation_level")
    return "AUTOCOMMIT" in (level, getattr(connection, "default_isolation_level", None)) or bool(
        getattr(connection.connection.dbapi_connection, "autocommit", False)
    )


def _numbered(statement: LiteralString) -> str:
    return statement.replace(f"%({PARAMETER})s", "$1")


def _not_in_transaction() -> NotInTransaction:
    return NotInTransaction(
        "this connection is in no transaction: begin one, so that what is written here is"
        " committed with what you write, or not at all"
    )
