"""What type checkers make of `publish` and `once`; and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, assert_type

from allim.events import Inbox, publish
from tests.events.producer.conftest import user_created

if TYPE_CHECKING:
    import psycopg
    import sqlalchemy
    from sqlalchemy import orm
    from sqlalchemy.ext import asyncio as alchemy_asyncio

    from allim.events.callers import AsyncpgConnection, DjangoConnection

    async def checked(  # mypy reads this; nobody calls it.
        psycopg_sync: psycopg.Connection[dict[str, Any]],
        psycopg_async: psycopg.AsyncConnection[tuple[Any, ...]],
        session: orm.Session,
        scoped: orm.scoped_session[orm.Session],
        connection: sqlalchemy.Connection,
        async_session: alchemy_asyncio.AsyncSession,
        async_scoped: alchemy_asyncio.async_scoped_session[alchemy_asyncio.AsyncSession],
        async_connection: alchemy_asyncio.AsyncConnection,
        asyncpg: AsyncpgConnection,
        django: DjangoConnection,
    ) -> None:
        event = user_created()
        assert_type(publish(psycopg_sync, event), int)
        assert_type(publish(session, event, event, serialize=True), int)
        assert_type(publish(scoped, event), int)
        assert_type(publish(connection, event), int)
        assert_type(publish(django, event), int)
        assert_type(publish(psycopg_async, event), Awaitable[int])
        assert_type(await publish(async_session, event), int)
        assert_type(await publish(async_scoped, event), int)
        assert_type(await publish(async_connection, event), int)
        assert_type(await publish(asyncpg, event), int)
        assert_type(Inbox("c").once(session, event.event_id), bool)
        assert_type(await Inbox("c").once(async_session, "id"), bool)
        publish(session, "no event")  # type: ignore[call-overload]
        publish("no session", event)  # type: ignore[call-overload]


UNWANTED = (
    "sqlalchemy", "django", "asyncpg", "fastavro", "google.protobuf", "fastapi", "starlette",
    "confluent_kafka", "aiobotocore", "aiohttp", "typer", "opentelemetry.sdk",
)  # fmt: skip


def test_publishing_loads_no_toolkit_that_the_caller_does_not_use() -> None:
    program = f"""
import sys
from allim.events import DomainEvent, Inbox, publish
from allim import wake, waking
class E(DomainEvent):
    topic = "t"
    user_id: int
from allim.events.encryption import Encryption, KeyRing
from allim.events.message import prepare
prepare([E(user_id=1)], Encryption(KeyRing()))
print([name for name in {UNWANTED!r} if name in sys.modules])
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[]\n"
    program = "import sys, allim; print('psycopg' in sys.modules, 'pydantic' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "False False\n"
