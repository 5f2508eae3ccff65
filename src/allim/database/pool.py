"""The one way to PostgreSQL: a pool of psycopg connections, and our errors for its errors."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, LiteralString, TypeAlias

import psycopg
import psycopg.conninfo
import psycopg.types.json
import psycopg_pool
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import TupleRow
from pydantic_core import from_json, to_json

from allim.base.errors import ConfigurationError, DatabaseUnavailable

Connection: TypeAlias = AsyncConnection[TupleRow]

_PASSWORD = re.compile(r"(?<=://)([^/?#@:]*):[^/?#]*@")
_PASSWORD_OPTION = re.compile(r"([?&](?:ssl)?password=)[^&#]*", re.IGNORECASE)

PINS = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}
"""Settings that pin the plans of hot statements.

After ANALYZE has met a table of finished rows only, the planner takes a claim for a scan of
everything (measured: 58,000 rows a second fell to 221).
"""

PIN_PLANS: LiteralString = "SELECT " + ", ".join(
    f"set_config('{name}', '{value}', true)" for name, value in PINS.items()
)
"""Pins plans for one transaction: what works through a transaction-mode pooler too."""


_GONE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg_pool.PoolTimeout,
    # A primary that was demoted, or a hosted one whose disk is full: it passes.
    psycopg.errors.ReadOnlySqlTransaction,
)


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn «the server is gone or refuses» into DatabaseUnavailable."""
    try:
        yield
    except _GONE as error:
        reason = str(error).strip().splitlines()
        raise DatabaseUnavailable(reason[0] if reason else type(error).__name__) from error


class Database:
    """Pools of connections to one database. Connections are in autocommit mode.

    Hot statements have connections of their own whose plans are pinned for the session, which
    saves them two statements each time. Behind a transaction-mode pooler a session cannot
    keep settings: there plans are pinned in each transaction.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "allim",
        min_size: int = 1,
        max_size: int = 10,
        timeout: float = 10.0,
    ) -> None:
        self.url = url
        self.pooler = False
        """Whether a transaction-mode pooler stands between: no prepared statements, no LISTEN."""

        def pool(
            least: int, configure: Callable[[Connection], Awaitable[None]]
        ) -> psycopg_pool.AsyncConnectionPool[Connection]:
            return psycopg_pool.AsyncConnectionPool(
                url,
                min_size=least,
                max_size=max_size,
                timeout=timeout,
                max_idle=300.0,
                reconnect_timeout=30.0,
                open=False,
                name=name,
                kwargs={
                    "autocommit": True,
                    "connect_timeout": 10,
                    "application_name": name,
                    "prepare_threshold": 3,
                },
                configure=configure,
            )

        self._pool = pool(min_size, self._configure)
        self._hot = pool(0, self._configure_hot)

    async def open(self) -> None:
        """Connect.

        Raises DatabaseUnavailable when the server does not answer, ConfigurationError when the URL
        cannot be one.
        """
        check_url(self.url)
        # A first connection of our own: the pool would hide why it cannot connect.
        with database_errors():
            async with await AsyncConnection.connect(self.url, connect_timeout=10) as connection:
                row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
                # A pooler invents the pid it tells at connect time.
                self.pooler = row is not None and row[0] != connection.info.backend_pid
            await self._pool.open()
            await self._hot.open()

    async def close(self) -> None:
        """Close every connection."""
        await self._hot.close()
        await self._pool.close()

    async def __aenter__(self) -> Database:
        await self.open()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in autocommit mode."""
        with database_errors():
            async with self._pool.connection() as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self, *, pinned: bool = False) -> AsyncIterator[Connection]:
        """A transaction: committed at the end, rolled back on an exception.

        `pinned` pins the plans of the statements in it (see PIN_PLANS).
        """
        with database_errors():
            async with (
                self._choose(pinned=pinned).connection() as connection,
                connection.transaction(),
            ):
                if pinned and self.pooler:
                    await connection.execute(PIN_PLANS)
                yield connection

    async def run_pinned(
        self, statement: LiteralString, parameters: dict[str, Any]
    ) -> list[TupleRow]:
        """Run one hot statement in a transaction of its own with pinned plans; one round trip."""
        with database_errors():
            async with self._choose(pinned=True).connection() as connection:
                cursor: AsyncCursor[TupleRow] = connection.cursor(binary=True)
                if not self.pooler:
                    await cursor.execute(statement, parameters, prepare=True)
                    return await cursor.fetchall()
                async with connection.pipeline():
                    await connection.execute("BEGIN")
                    await connection.execute(PIN_PLANS)
                    await cursor.execute(statement, parameters)
                    await connection.execute("COMMIT")
                return await cursor.fetchall()

    async def fetch(
        self, statement: LiteralString, parameters: dict[str, Any] | None = None
    ) -> list[TupleRow]:
        """Run one statement by itself; its rows."""
        async with self.connection() as connection:
            return await (await connection.execute(statement, parameters)).fetchall()

    def _choose(self, *, pinned: bool) -> psycopg_pool.AsyncConnectionPool[Connection]:
        return self._hot if pinned and not self.pooler else self._pool

    async def _configure_hot(self, connection: Connection) -> None:
        await self._configure(connection)
        for name, value in PINS.items():
            await connection.execute(f"SET {name} = {value}")

    async def _configure(self, connection: Connection) -> None:
        prepare_connection(connection)
        if self.pooler:
            connection.prepare_threshold = None


def prepare_connection(connection: psycopg.Connection[Any] | AsyncConnection[Any]) -> None:
    """Give a connection our JSON: fast, and refusing what PostgreSQL cannot store."""
    psycopg.types.json.set_json_dumps(to_json, connection)
    psycopg.types.json.set_json_loads(from_json, connection)


def check_url(url: str) -> None:
    """Raise ConfigurationError unless `url` can be a PostgreSQL URL; never shows a password."""
    if not url.startswith(("postgresql://", "postgres://")):
        raise ConfigurationError(
            "DATABASE_URL must begin with postgresql:// (Allim runs on PostgreSQL only)"
        )
    try:
        port = str(psycopg.conninfo.conninfo_to_dict(url).get("port", ""))
    except psycopg.ProgrammingError as error:
        # Only its first words: what it quotes may be the password, and so may a wrong port.
        reason = str(error).partition('"')[0].strip(" :\n")
        raise ConfigurationError(f"DATABASE_URL is not a PostgreSQL URL: {reason}") from None
    if port and not all(each.isdigit() for each in port.split(",")):
        raise ConfigurationError("DATABASE_URL has a port that is not a number")


def shown_url(url: str) -> str:
    """A database URL without its passwords, wherever they stand in it."""
    url = _PASSWORD.sub(r"\1:***@", url)
    return _PASSWORD_OPTION.sub(r"\1***", url)
