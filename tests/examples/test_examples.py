"""The programs of `examples/` run, on the real libraries and the real database."""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Mapping
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest

from allim.base.ids import uuid7
from tests.programs import run_code

SIGN_UP_WITH_FASTAPI = """
import asyncio, json, sys
from contextlib import suppress
from starlette.requests import Request
from examples.fastapi_shop import app

async def post(name):
    sent = []
    body = json.dumps({"name": name}).encode()
    async def receive(): return {"type": "http.request", "body": body}
    async def send(message): sent.append(message)
    scope = {"type": "http", "method": "POST", "path": "/users", "raw_path": b"/users",
             "query_string": b"", "headers": [(b"content-type", b"application/json")],
             "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
             "server": ("localhost", 80), "root_path": ""}
    with suppress(Exception):
        await app(scope, receive, send)
    return sent[0]["status"]

async def main():
    async with app.router.lifespan_context(app):
        print(json.dumps([await post(name) for name in ("kim", "lee", "kim")]))

asyncio.run(main())
"""

SIGN_UP_WITH_DJANGO = """
import json
from contextlib import suppress
import django
django.setup()
from django.core.management import call_command
from django.db import IntegrityError
from django.test import Client

call_command("migrate", run_syncdb=True, verbosity=0)

def post(name):
    try:
        return Client().post("/users", {"name": name}, content_type="application/json").status_code
    except IntegrityError:
        return 500

print(json.dumps([post(name) for name in ("kim", "lee", "kim")]))
"""


@pytest.mark.parametrize(
    ("library", "program", "table"),
    [
        ("sqlalchemy", SIGN_UP_WITH_FASTAPI, "fastapi_user"),
        ("django", SIGN_UP_WITH_DJANGO, "shop_user"),
    ],
)
def test_who_signs_up_is_told_of_and_who_does_not_is_not(
    database_url: str, library: str, program: str, table: LiteralString
) -> None:
    pytest.importorskip(library)
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("LISTEN allim_wake")
        said = run_code(
            program, database_url, DJANGO_SETTINGS_MODULE="examples.django_shop.settings"
        )
        answers = json.loads(said)
        woken = [notice.payload for notice in listener.notifies(timeout=30, stop_after=1)]
        users = listener.execute(f"SELECT id, name FROM {table}").fetchall()
        events = listener.execute(
            "SELECT message_key, payload, headers ->> 'eventType' FROM outbox_messages ORDER BY seq"
        ).fetchall()
    assert answers == [201, 201, 500]
    assert set(woken) == {"events"}
    assert [name for _, name in users] == ["kim", "lee"]
    assert [
        (UUID(key), json.loads(payload)["username"], kind) for key, payload, kind in events
    ] == [(identity, name, "UserCreated") for identity, name in users]


class Message:
    """A message as confluent-kafka hands it out."""

    def __init__(self, event: UUID, username: str) -> None:
        self.event = event
        self.username = username

    def error(self) -> None:
        return None

    def headers(self) -> list[tuple[str, bytes]]:
        return [("eventType", b"UserCreated"), ("eventId", str(self.event).encode())]

    def value(self) -> bytes:
        return json.dumps({"username": self.username}).encode()


class Repeating:
    """A consumer of a broker that forgets commits, and so delivers nearly everything twice."""

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages
        self.committed: list[UUID] = []

    def poll(self, _timeout: float) -> Message | None:
        return self._messages.pop(0) if self._messages else None

    def commit(self, message: Message, *, asynchronous: bool) -> None:
        assert not asynchronous
        self.committed.append(message.event)


def test_the_consumer_is_exactly_once_in_effect(database_url: str) -> None:
    example = importlib.import_module("examples.welcome_consumer")
    first = [Message(uuid7(), f"user-{number}") for number in range(30)]
    feed = [*first, *first, *first[:10]]
    random.Random(11).shuffle(feed)
    dies_at = {5, 17, 40}

    def running(database: psycopg.Connection[Any]) -> Any:
        for at in range(len(feed) + 1):
            if at in dies_at:
                database.close()
            yield True

    consumer = Repeating(list(feed))
    while consumer._messages:
        with psycopg.connect(database_url, autocommit=True) as database:
            try:
                example.consume(consumer, database, running(database))
            except psycopg.OperationalError:
                # What it died on was not committed: the broker delivers it again.
                consumer._messages.append(feed[5])
                dies_at.clear()
    with psycopg.connect(database_url) as database:
        welcomed = database.execute("SELECT recipient FROM delivery").fetchall()
    assert sorted(name for (name,) in welcomed) == sorted(m.username for m in first)


def test_a_message_that_cannot_be_worked_on_is_not_noted(database_url: str) -> None:
    example = importlib.import_module("examples.welcome_consumer")
    headers: Mapping[str, bytes] = {"eventId": str(uuid7()).encode()}
    with psycopg.connect(database_url, autocommit=True) as database:
        with pytest.raises(KeyError):
            example.handle(database, headers, b"{}")
        assert example.handle(database, headers, b'{"username":"kim"}')
        assert not example.handle(database, headers, b'{"username":"kim"}')
