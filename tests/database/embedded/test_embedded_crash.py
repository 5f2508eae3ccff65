"""What was acknowledged survives kill -9, and what is left of a server is no obstacle."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import pq

from allim.base.errors import EmbeddedServerError
from allim.database.embedded import EmbeddedServer, cluster
from allim.database.embedded.postmaster import Postmaster, is_alive, orphans

Value = Callable[[str, str], Any]
WaitUntil = Callable[[Callable[[], object], str], None]

KILLS = 10
ROWS_BEFORE_A_KILL = 30


def kill_all_of(data: Path) -> None:
    """kill -9 the postmaster first, then all of its children."""
    postmaster = Postmaster.of(data)
    assert postmaster is not None
    os.kill(postmaster.pid, signal.SIGKILL)
    for pid in orphans(data):
        os.kill(pid, signal.SIGKILL)


class Writer(threading.Thread):
    """Inserts numbers until the server goes away; `acknowledged` are those it was told of."""

    def __init__(self, url: str, first: int) -> None:
        super().__init__()
        self._url = url
        self._next = first
        self.acknowledged: list[int] = []
        self.has_enough = threading.Event()

    def run(self) -> None:
        try:
            with psycopg.connect(self._url, autocommit=True) as connection:
                while True:
                    connection.execute("INSERT INTO kept VALUES (%s)", [self._next])
                    self.acknowledged.append(self._next)
                    self._next += 1
                    if len(self.acknowledged) >= ROWS_BEFORE_A_KILL:
                        self.has_enough.set()
        except psycopg.OperationalError:
            self.has_enough.set()


def test_no_acknowledged_row_is_lost_by_ten_kills(home: Path) -> None:
    acknowledged: list[int] = []
    with EmbeddedServer.open(home) as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("DROP TABLE IF EXISTS kept")
            connection.execute("CREATE TABLE kept (number int PRIMARY KEY)")
        for kill in range(KILLS):
            writers = [Writer(server.url, first=kill * 1_000_000 + k * 500_000) for k in range(2)]
            for writer in writers:
                writer.start()
            for writer in writers:
                assert writer.has_enough.wait(60)
            kill_all_of(server.data)
            for writer in writers:
                writer.join(60)
                assert len(writer.acknowledged) >= ROWS_BEFORE_A_KILL
                acknowledged += writer.acknowledged

            with EmbeddedServer.open(home) as again, psycopg.connect(again.url) as connection:
                assert again.url == server.url
                rows = connection.execute("SELECT number FROM kept").fetchall()
            assert set(acknowledged) <= {number for (number,) in rows}


def test_children_that_outlive_a_killed_postmaster_are_waited_for(
    home: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setattr(cluster, "ORPHANS_LEAVE_SECONDS", 0.3)

    def work_without_looking_up(url: str) -> None:
        with suppress(psycopg.OperationalError), psycopg.connect(url) as connection:
            connection.execute("DO $$ BEGIN LOOP END LOOP; END $$")

    with EmbeddedServer.open(home) as server:
        busy = threading.Thread(target=work_without_looking_up, args=[server.url], daemon=True)
        busy.start()
        with psycopg.connect(server.url, autocommit=True) as connection:
            wait_until(
                lambda: connection.execute(
                    "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %'"
                ).fetchone(),
                "the busy session",
            )
        killed = Postmaster.of(server.data)
        assert killed is not None
        os.kill(killed.pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(killed.pid), "the end of the postmaster")
        wait_until(lambda: len(list(orphans(server.data))) == 1, "the other children to go")

        with EmbeddedServer.open(home) as again:
            busy.join(60)
            assert not busy.is_alive()
            renewed = Postmaster.of(again.data)
            assert renewed is not None
            assert renewed.pid != killed.pid


def test_a_recovery_that_takes_long_is_waited_for(
    home: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setattr(cluster, "DEAF_SECONDS", 0.1)  # starting up is not deafness
    with EmbeddedServer.open(home) as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS kept")
            connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 150000) AS number")
            connection.execute("UPDATE kept SET number = number + 1")
        kill_all_of(server.data)

        with ThreadPoolExecutor() as threads:
            opening = threads.submit(EmbeddedServer.open, home)
            startup = frozen_startup_process(server.data, wait_until)
            address = server.url.encode()
            try:
                answers = [pq.PGconn.ping(address) for _ in range(200)]
                assert set(answers) == {pq.Ping.REJECT}
                assert not opening.done()
            finally:
                os.kill(startup, signal.SIGCONT)
            opening.result(60).close()

        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (150000,)
            connection.execute("DROP TABLE kept")


def frozen_startup_process(data: Path, wait_until: WaitUntil) -> int:
    found: list[int] = []

    def freeze() -> bool:
        for pid in orphans(data):
            try:
                title = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if b"startup" in title:
                os.kill(pid, signal.SIGSTOP)
                found.append(pid)
        return bool(found)

    wait_until(freeze, "the process that recovers")
    return found[0]


def test_a_server_that_dies_while_starting_is_an_error_with_its_last_words(
    home: Path,
) -> None:
    settings = home / "postgres" / "data" / "postgresql.conf"
    settings.write_text(settings.read_text() + "\nno_such_setting = 1\n")

    with pytest.raises(EmbeddedServerError, match="no_such_setting") as caught:
        EmbeddedServer.open(home)

    assert str(home / "postgres" / "server.log") in str(caught.value)


def test_a_server_that_was_killed_is_started_again_by_opening(home: Path, value: Value) -> None:
    with EmbeddedServer.open(home) as server:
        kill_all_of(server.data)
        with EmbeddedServer.open(home) as again:
            assert again.url == server.url
            assert value(server.url, "SELECT 1") == 1
    assert Postmaster.of(server.data) is None
