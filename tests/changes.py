"""Waiting for what a database holds, woken by its own changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg

CHANNEL = "changed_for_a_test"

Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


@asynccontextmanager
async def changes(url: str, *, patience: float) -> AsyncIterator[Until]:
    """Hears every commit that changes deliveries; waits until a condition holds after one.

    `patience` is seconds.
    """
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(
            "CREATE OR REPLACE FUNCTION tell_a_test() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN PERFORM pg_notify('{CHANNEL}', ''); RETURN NULL; END $$"
        )
        await connection.execute(
            "CREATE OR REPLACE TRIGGER tell_a_test AFTER INSERT OR UPDATE ON delivery"
            " FOR EACH STATEMENT EXECUTE FUNCTION tell_a_test()"
        )
        await connection.execute(f"LISTEN {CHANNEL}")

        async def until(holds: Callable[[], Awaitable[bool]]) -> None:
            async with asyncio.timeout(patience):
                while not await holds():
                    await anext(connection.notifies())

        yield until
