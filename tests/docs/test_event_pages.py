"""The code on the pages about events runs, and what Debezium is told fits the table."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from allim.base.ids import uuid7
from tests.docs.test_blocks import blocks
from tests.programs import run_code

DJANGO = """
import django
django.setup()
{page}
from uuid import uuid4
sign_up(uuid4(), "kim")
assert published() == ["UserCreated"], published()
"""


def test_the_page_on_publishing_runs_from_top_to_bottom(database_url: str) -> None:
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("fastavro")
    page = blocks("docs/how-to/publish-events.md", "python")
    ordered = "publish(session, OrderPlaced(tenant_id=1, order_id=2))"
    run_code(
        "\n".join(page) + f"\nwith Session(engine) as session, session.begin():\n    {ordered}\n",
        database_url,
    )
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT topic, headers ->> 'eventType', headers ->> 'tenant', content_type"
            "  FROM outbox_messages ORDER BY seq"
        ).fetchall()
    assert rows == [
        ("user-events", "UserCreated", None, "application/json"),
        ("user-events", "UserRenamed", None, "application/avro"),
        ("user-events", "UserLeft", None, "application/json"),
        ("raw", None, None, "application/octet-stream"),
        ("clicks", "PageViewed", None, "application/json"),
        ("orders", "OrderPlaced", "1", "application/json"),
    ]


def test_the_page_on_django_runs(database_url: str) -> None:
    pytest.importorskip("django")
    publishing, _migration, looking = blocks("docs/how-to/events-from-django.md", "python")
    run_code(
        DJANGO.format(page=f"{publishing}\n{looking}"),
        database_url,
        DJANGO_SETTINGS_MODULE="examples.django_shop.settings",
    )


def test_the_page_on_consuming_runs(database_url: str) -> None:
    (code,) = blocks("docs/how-to/consume-events-once.md", "python")
    module: dict[str, Any] = {}
    exec(compile(code, "consume-events-once.md", "exec"), module)
    headers = {"eventId": str(uuid7()).encode()}
    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute("CREATE TABLE account (user_id integer)")
        for _ in range(3):
            module["handle"](database, headers, b'{"user_id": 7}')
        assert database.execute("SELECT user_id FROM account").fetchall() == [(7,)]


def test_every_column_that_debezium_is_told_of_is_there_and_of_a_kind_it_takes(
    database_url: str,
) -> None:
    (config,) = blocks("docs/how-to/debezium.md", "json")
    wanted: dict[str, str] = json.loads(config)
    with psycopg.connect(database_url) as connection:
        columns: dict[str, tuple[str, str]] = {
            name: (kind, nullable)
            for name, kind, nullable in connection.execute(
                "SELECT column_name, data_type, is_nullable FROM information_schema.columns"
                " WHERE table_schema || '.' || table_name = %s",
                [wanted["table.include.list"]],
            )
        }
        generated = connection.execute(
            "SELECT count(*) FROM pg_attribute"
            " WHERE attrelid = 'outbox_messages'::regclass AND attgenerated <> ''"
        ).fetchone()
    router = {
        name.removeprefix("transforms.outbox."): value
        for name, value in wanted.items()
        if name.startswith("transforms.outbox.")
    }
    assert columns[router["table.field.event.id"]] == ("uuid", "NO")
    assert columns[router["table.field.event.payload"]] == ("bytea", "NO")
    assert columns[router["route.by.field"]] == ("character varying", "NO")
    assert columns[router["table.field.event.key"]][0] == "text"
    placed = [each.split(":") for each in router["table.fields.additional.placement"].split(",")]
    assert {name for name, _, _ in placed} <= set(columns)
    # One placement in the envelope would wrap every payload.
    assert {place for _, place, _ in placed} == {"header"}
    # pgoutput leaves generated columns out.
    assert generated == (0,)
