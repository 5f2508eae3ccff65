"""Templates are rendered beside the event loop, whoever asks for it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.hub.service import Hub
from allim.hub.templates.rendering import Compiled, Occasion, StoredTemplate
from tests.hub.conftest import Api, Start
from tests.hub.relaying import PATIENCE_SECONDS, until
from tests.ingest.conftest import route

Ask = Callable[[Api, Database, Hub], Awaitable[Any]]
TO_LOG = {"channel": "LOG", "template_code": "SLOW"}


async def by_the_hub(_api: Api, database: Database, hub: Hub) -> None:
    async with database.transaction() as tx:
        await hub.notify(tx, source="t", type="T", title="t", deliveries=[TO_LOG])


async def by_a_route_of_ingest(api: Api, _database: Database, _hub: Hub) -> None:
    answer = await api.post("/notify/ops", json={"title": "t", "body": "b"})
    assert answer.status == 200, answer.body


async def by_post(api: Api, _database: Database, _hub: Hub) -> None:
    body = {"source": "t", "type": "T", "title": "t", "deliveries": [TO_LOG]}
    assert (await api.create(body)).status == 202


@pytest.mark.parametrize("part", ["compile", "render"])
@pytest.mark.parametrize("ask", [by_the_hub, by_a_route_of_ingest, by_post])
async def test_a_slow_template_holds_up_nobody_else(
    start_api: Start,
    database: Database,
    channels: Mapping[str, Channel],
    monkeypatch: pytest.MonkeyPatch,
    ask: Ask,
    part: str,
) -> None:
    routes = json.dumps([route("ops", key="ops", deliveries=[TO_LOG])])
    api = await start_api(INGEST_ROUTES=routes)
    stored = {"code": "SLOW", "channel": "LOG", "body": "slow {{ title }}"}
    assert (await api.post("/templates", json=stored)).status == 201
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_SECONDS), "the event loop stood still"

    render, compile_ = StoredTemplate.render, Compiled.of

    def slow_render(self: StoredTemplate, occasion: Occasion) -> Any:
        hold()
        return render(self, occasion)

    def slow_compile(*given: Any) -> Any:
        hold()
        return compile_(*given)

    if part == "render":
        monkeypatch.setattr(StoredTemplate, "render", slow_render)
    else:
        monkeypatch.setattr(Compiled, "of", slow_compile)
    asking = asyncio.ensure_future(ask(api, database, Hub(channels)))

    async def has_begun() -> bool:
        return begun.is_set() or asking.done()

    await until(has_begun, "the template's turn")
    assert begun.is_set(), await asking
    assert (await api.get("/health/live")).status == 200
    go_on.set()
    await asking
    rows = await database.fetch("SELECT payload ->> 'message' FROM delivery")
    assert rows == [("slow t",)]
