"""The page on sizing: its SQL runs, and what it says of replicas and schemas is so."""

from __future__ import annotations

from pathlib import Path

import psycopg

from allim.database.migrate import migrate
from tests.docs.test_blocks import blocks
from tests.programs import an_empty_directory, programs

PAGE = str(Path("docs") / "how-to" / "sizing.md")


def test_the_page_s_statements_run_and_delete_only_what_is_old_and_done(
    database_url: str,
) -> None:
    settings, looks, deletion = blocks(PAGE, "sql")
    with psycopg.connect(database_url, autocommit=True) as connection:
        for age, status in ((200, "SUCCESS"), (200, "HELD"), (10, "SUCCESS")):
            connection.execute(
                "WITH n AS (INSERT INTO notification (id, source, type, created_at)"
                "     VALUES (gen_random_uuid(), 's', 't', now() - make_interval(days => %s))"
                "     RETURNING id)"
                " INSERT INTO delivery (notification_id, channel, max_attempts, status)"
                " SELECT id, 'LOG', 1, %s FROM n",
                [age, status],
            )
        for statement in (settings, looks, deletion):
            connection.execute(statement.encode())
        left = connection.execute(
            "SELECT n.created_at > now() - interval '180 days', d.status"
            "  FROM delivery d LEFT JOIN notification n ON n.id = d.notification_id ORDER BY d.id"
        ).fetchall()
        options = connection.execute(
            "SELECT array_to_string(reloptions, ' ') FROM pg_class WHERE relname = 'delivery'"
        ).fetchone()
    assert left == [(False, "HELD"), (True, "SUCCESS")]
    assert options is not None
    assert "autovacuum_vacuum_scale_factor=0.005" in options[0]


def with_option(url: str, option: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}options=-c{option}"


async def test_an_api_of_a_replica_answers_what_only_reads(database_url: str) -> None:
    read_only = with_option(database_url, "default_transaction_read_only%3Don")
    with an_empty_directory() as place:
        async with programs(place) as start:
            api = await start("api", DATABASE_URL=read_only)
            for path in ("/health/ready", "/notifications", "/deliveries", "/metrics"):
                assert (await api.call("GET", path))[0] == 200
            body = {"source": "s", "type": "t", "deliveries": [{"channel": "LOG"}]}
            status, problem = await api.call("POST", "/notifications", json=body)
            assert (status, problem["code"]) == (503, "database_unavailable")


async def test_groups_of_tenants_may_have_schemas_of_their_own(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA group7")
        own = with_option(database_url, "search_path%3Dgroup7")
        migrate(own)
        with an_empty_directory() as place:
            async with programs(place) as start:
                allim = await start("up", DATABASE_URL=own)
                await allim.attempts(await allim.create(deliveries=[{"channel": "LOG"}]), 1)
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM group7.notification),"
            " (SELECT count(*) FROM public.notification)"
        ).fetchone()
    assert counts == (1, 0)
