"""The hub over real sockets, with routes of the test's choice."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, LiteralString

import pytest

from allim.database.pool import Database
from tests.hub.conftest import Api, Start, channels, start_api

__all__ = ["channels", "start_api"]

LOG: dict[str, Any] = {"channel": "LOG"}
"""A delivery that any machine can make."""

TakeRoutes = Callable[..., Awaitable[Api]]


def route(name: str, *match: str, **more: Any) -> dict[str, Any]:
    """A route as it stands in the setting."""
    return {"name": name, "match": list(match), "deliveries": [{**LOG, "recipient": name}], **more}


@pytest.fixture
def with_routes(start_api: Start) -> TakeRoutes:
    """Starts a server that has these routes."""

    async def start(*routes: dict[str, Any], **settings: str) -> Api:
        return await start_api(INGEST_ROUTES=json.dumps(routes), **settings)

    return start


async def told(api: Api, **headers: str) -> list[dict[str, Any]]:
    """Every notification with its deliveries, oldest first."""
    listed = (await api.get("/notifications?limit=250", headers=headers)).json["items"]
    return [
        (await api.get(f"/notifications/{each['id']}", headers=headers)).json
        for each in reversed(listed)
    ]


def recipients(notification: dict[str, Any]) -> list[str]:
    """Where it goes: the names of the routes here."""
    return [delivery["recipient"] for delivery in notification["deliveries"]]


async def change(database: Database, statement: LiteralString) -> None:
    """Run a statement that answers nothing."""
    async with database.connection() as connection:
        await connection.execute(statement)
