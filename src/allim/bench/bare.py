"""The yardstick for `POST /notifications`: the handler anybody would write first.

FastAPI, a pydantic body, asyncpg; BEGIN, three inserts, COMMIT; no checks, no idempotency. It
writes to Allim's own tables, so both sides pay for the same indexes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
from fastapi import FastAPI
from pydantic import BaseModel

NOTIFICATION = (
    "INSERT INTO notification (id, source, type, title, message) VALUES ($1, $2, $3, $4, $5)"
)
DELIVERY = """
    INSERT INTO delivery (notification_id, channel, recipient, max_attempts)
    VALUES ($1, $2, $3, 8) RETURNING id"""


class Entry(BaseModel):
    """One delivery of the body."""

    channel: str
    recipient: str | None = None


class Body(BaseModel):
    """The body of a post."""

    source: str
    type: str
    title: str
    message: str
    deliveries: list[Entry]


def make_app() -> FastAPI:
    """The application, over DATABASE_URL."""
    pools: list[asyncpg.Pool] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        pools.append(
            await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=16, max_size=16)
        )
        yield
        await pools.pop().close()

    app = FastAPI(lifespan=lifespan)

    @app.post("/notifications", status_code=202)
    async def create(body: Body) -> dict[str, object]:
        identity = uuid4()
        async with pools[0].acquire() as connection, connection.transaction():
            await connection.execute(
                NOTIFICATION, identity, body.source, body.type, body.title, body.message
            )
            ids = [
                await connection.fetchval(DELIVERY, identity, entry.channel, entry.recipient)
                for entry in body.deliveries
            ]
        return {"id": str(identity), "deliveries": ids}

    return app
