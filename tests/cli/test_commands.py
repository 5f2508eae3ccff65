"""What the command line answers."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg
import pytest

from allim.cli.moments import when
from allim.database.migrate import migrations
from tests.conftest import named
from tests.programs import allim, programs


@pytest.fixture
def empty_url(server_url: str) -> str:
    """A database without a schema."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS not_migrated WITH (FORCE)")
        connection.execute("CREATE DATABASE not_migrated")
    return named(server_url, "not_migrated")


async def test_an_unknown_setting_stops_the_start(place: Path) -> None:
    ended = await allim("up", cwd=place, ALLIM_PROT="1")
    assert ended.code == 2
    assert ended.err == "allim: unknown settings: ALLIM_PROT (did you mean ALLIM_PORT?)\n"


async def test_every_wrong_setting_is_named_at_once_and_none_is_shown(place: Path) -> None:
    ended = await allim("relay", cwd=place, ALLIM_PORT="many", SMTP_URL="http://user:hunter2@mail")
    assert ended.code == 2
    assert "ALLIM_PORT" in ended.err
    assert "SMTP_URL" in ended.err
    assert "hunter2" not in ended.err
    assert len(ended.err.splitlines()) == 1


async def test_a_database_that_does_not_answer_is_an_error_and_nothing_else_is_started(
    place: Path,
) -> None:
    url = "postgresql://user:hunter2@127.0.0.1:1/none"
    ended = await allim("up", cwd=place, DATABASE_URL=url)
    assert ended.code == 1
    assert "DATABASE_URL postgresql://user:***@127.0.0.1:1/none" in ended.err
    assert "hunter2" not in ended.err
    assert "Traceback" not in ended.err
    assert not (place / ".allim").exists()


async def test_a_url_that_is_none_is_a_settings_error(place: Path) -> None:
    ended = await allim("relay", cwd=place, DATABASE_URL="mysql://somewhere/x")
    assert ended.code == 2
    assert "postgresql://" in ended.err


async def test_an_open_address_needs_a_key(place: Path, database_url: str) -> None:
    refused = await allim("api", "--host", "0.0.0.0", cwd=place, DATABASE_URL=database_url)
    assert refused.code == 2
    assert "there is no API key" in refused.err

    created = await allim("key", "create", "shop", cwd=place, DATABASE_URL=database_url)
    assert created.code == 0
    token = created.out.strip()
    assert token.startswith("allim_")
    async with programs(place) as start:
        api = await start(
            "api", "--host", "0.0.0.0", DATABASE_URL=database_url, ALLIM_ALLOWED_HOSTS="*"
        )
        status, body = await api.call("GET", "/notifications")
        assert (status, body["code"]) == (401, "unauthenticated")
        status, _ = await api.call(
            "GET", "/notifications", headers={"Authorization": f"Bearer {token}"}
        )
        assert status == 200

    listed = await allim("key", "list", cwd=place, DATABASE_URL=database_url)
    assert "shop" in listed.out
    assert token not in listed.out
    identity = listed.out.split()[0]
    revoked = await allim("key", "revoke", identity, cwd=place, DATABASE_URL=database_url)
    assert revoked.code == 0
    again = await allim("key", "revoke", identity, cwd=place, DATABASE_URL=database_url)
    assert again.code == 2


async def test_a_port_that_is_taken_is_one_clear_line(place: Path, database_url: str) -> None:
    async with programs(place) as start:
        first = await start("api", DATABASE_URL=database_url)
        port = first.url.rsplit(":", 1)[1]
        second = await allim("api", "--port", port, cwd=place, DATABASE_URL=database_url)
    assert second.code == 2
    assert f"port {port} of 127.0.0.1 is taken" in second.err


async def test_a_schema_is_migrated_only_when_asked_on_a_real_database(
    place: Path, empty_url: str
) -> None:
    refused = await allim("relay", cwd=place, DATABASE_URL=empty_url)
    assert refused.code == 1
    assert "run `allim migrate`" in refused.err

    first = await allim("migrate", cwd=place, DATABASE_URL=empty_url)
    assert first.code == 0
    assert "applied 0001 hub" in first.out
    second = await allim("migrate", cwd=place, DATABASE_URL=empty_url)
    assert "nothing to do" in second.out

    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("INSERT INTO schema_migration (number, name) VALUES (9999, 'later')")
    newer = await allim("migrate", cwd=place, DATABASE_URL=empty_url)
    assert newer.code == 1
    assert "newer version" in newer.err


async def test_the_sql_of_every_migration_is_printed(place: Path) -> None:
    ended = await allim("migrate", "--sql", cwd=place)
    assert ended.out.count("\n-- 0") == len(migrations())
    assert not (place / ".allim").exists()


async def test_db_url_prints_the_url_and_leaves_the_server_up(place: Path) -> None:
    first = await allim("db", "url", cwd=place)
    assert first.code == 0
    assert first.err == ""
    url = first.out.removesuffix("\n")
    assert url.startswith("postgresql://")
    assert "\n" not in url
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM delivery").fetchone() == (0,)

    assert (await allim("db", "url", cwd=place)).out == first.out
    stopped = await allim("db", "stop", cwd=place)
    assert stopped.out == "stopped\n"
    assert "no embedded server" in (await allim("db", "stop", cwd=place)).out


async def test_a_dump_of_one_home_is_taken_up_by_another(place: Path) -> None:
    sent = await allim("send", "LOG", "-m", "kept", cwd=place)
    dumped = await allim("db", "dump", "--", "--clean", "--if-exists", cwd=place)
    assert dumped.code == 0, dumped.err
    other = place / "other"
    other.mkdir()
    (other / "dump.sql").write_text(dumped.out, encoding="utf-8")
    restored = await allim(
        *("db", "shell", "--", "--quiet", "-v", "ON_ERROR_STOP=1", "-f", "dump.sql"), cwd=other
    )
    assert restored.code == 0, restored.err
    found = await allim("db", "shell", "--", "-Atc", "SELECT id FROM notification", cwd=other)
    assert found.out == sent.out


async def test_db_shell_hands_on_arguments_and_exit_code(place: Path) -> None:
    ended = await allim("db", "shell", "--", "-Atc", "SELECT 6 * 7", cwd=place)
    assert ended.out == "42\n"
    failed = await allim("db", "shell", "--", "-c", "SELECT nothing", cwd=place)
    assert failed.code == 1


async def test_send_stores_what_a_relay_delivers(place: Path, database_url: str) -> None:
    async with programs(place) as start:
        program = await start("up", DATABASE_URL=database_url)
        sent = await allim(
            "send", "email", "kim@example.com", "-t", "안녕", "-m", "잘 됩니다",
            cwd=place, DATABASE_URL=database_url,
        )  # fmt: skip
        identity = sent.out.strip()
        await program.attempts(identity, 1)
        assert (await program.show(identity))["status"] == "COMPLETED"
        await program.prints("Subject: 안녕")

    refused = await allim(
        "send", "email", "nobody", "-m", "x", cwd=place, DATABASE_URL=database_url
    )
    assert refused.code == 2
    assert refused.err == "allim: recipient: has no @\n"


async def test_the_doctor_finds_nothing_wrong_with_a_fresh_start(place: Path) -> None:
    ended = await allim("doctor", cwd=place)
    assert ended.code == 0, ended.out
    assert "nothing is wrong" in ended.out
    assert "mock: SMTP_URL is not set" in ended.out
    assert "no API key" in ended.out


async def test_a_lease_that_a_call_may_outlive_is_refused_with_what_to_do(place: Path) -> None:
    started = await allim("up", "--port", "0", cwd=place, WEBHOOK_TIMEOUT_SECONDS="100")
    assert started.code == 2
    assert started.err.splitlines()[-1] == (
        "allim: DELIVERY_LEASE_SECONDS is 60, but a call may take longer: WEBHOOK 105 s. Set it to"
        " more, or lower WEBHOOK_TIMEOUT_SECONDS (a call may take 5 s more than that)"
    )
    assert "Warning" not in started.err
    examined = await allim("doctor", cwd=place, WEBHOOK_TIMEOUT_SECONDS="100")
    assert examined.code == 1
    assert "a call may take longer: WEBHOOK 105 s" in examined.out


async def test_a_database_that_cannot_be_migrated_is_named(place: Path) -> None:
    url = "postgresql://user:hunter2@127.0.0.1:1/none"
    ended = await allim("migrate", cwd=place, DATABASE_URL=url)
    assert ended.code == 1
    assert ended.err.startswith("allim: DATABASE_URL postgresql://user:***@127.0.0.1:1/none: ")


async def test_send_names_the_argument_that_is_wrong(place: Path, database_url: str) -> None:
    ended = await allim("send", "EMAIL", "nobody", cwd=place, DATABASE_URL=database_url)
    assert ended.code == 2
    assert ended.err == "allim: recipient: has no @; message: there is nothing to say\n"


async def test_the_doctor_says_what_is_wrong(place: Path, empty_url: str) -> None:
    ended = await allim(
        "doctor",
        cwd=place,
        DATABASE_URL=empty_url,
        SMTP_URL="smtp://127.0.0.1:1",
        ALLIM_HOST="0.0.0.0",
    )
    assert ended.code == 1
    assert "run `allim migrate`" in ended.out
    assert "could not connect" in ended.out
    unreachable = await allim("doctor", cwd=place, DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert unreachable.code == 1
    assert "Connection refused" in unreachable.out


async def test_the_doctor_names_targets_that_are_not_called(place: Path, database_url: str) -> None:
    disabled = [
        ("WEBHOOK", "https://u:pw@shop.kr/t0ken", "answered 410"),
        ("SLACK", "default", "Slack answered 403"),
    ]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.cursor().executemany(
            "INSERT INTO endpoint (channel, url, disabled_at, disabled_reason)"
            " VALUES (%s, %s, now(), %s)",
            disabled,
        )
    ended = await allim("doctor", cwd=place, DATABASE_URL=database_url)
    words = " ".join(ended.out.split())
    assert "! target 1 WEBHOOK shop.kr is not called: answered 410" in words, "it may well be gone"
    assert "POST /endpoints/1/enable" in words
    assert "✗ target 2 SLACK default is not called: Slack answered 403" in words
    assert "t0ken" not in words
    assert "pw" not in words


async def test_a_time_is_typed_as_it_is_shown(place: Path, database_url: str) -> None:
    here = partial(allim, cwd=place, DATABASE_URL=database_url)
    await here("send", "WEBHOOK", "https://shop.kr/", "-m", "x")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE delivery SET status = 'DEAD', created_at = '2026-01-31 00:00Z'")
    shown = when(datetime(2026, 1, 31, tzinfo=UTC))
    assert shown == "2026-01-31T09:00:00+09:00"
    found = ("replay", "--dry-run", "--from", shown)
    fits = await here(*found)
    assert "1 WEBHOOK DEAD" in " ".join(fits.out.split())
    gone_by = await here(*found, "--to", shown)
    assert "1 WEBHOOK" not in gone_by.out
    naive = await here("replay", "--from", "2026-01-31T09:00")
    assert naive.code == 2
    assert naive.err.endswith("needs its offset from UTC, as in 2026-01-31T09:00+09:00\n")


async def test_help_reads_well(place: Path) -> None:
    ended = await allim("--help", cwd=place)
    assert ended.code == 0
    for command in ("up", "api", "relay", "migrate", "db", "doctor", "key", "send", "demo"):
        assert command in ended.out
    version = await allim("--version", cwd=place)
    assert version.out.startswith("allim ")
