"""Everything works through a transaction-mode pooler: no session state on that path."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from tests.programs import an_empty_directory, programs

from allim.base.errors import DatabaseUnavailable
from allim.channels.channel import Message
from allim.database.pool import Database
from allim.database.wakes import Waker
from allim.database.waking import ThreadedWaker
from allim.hub.delivery_box import DeliveryBox
from allim.relay.lane import Lane
from allim.relay.outcomes import Outcome
from allim.relay.relay import Relay
from allim.relay.sender import RecordProviderId, SendingLimits
from allim.relay.wake import WakeSignal
from allim.relay.work import Work

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed")

DELIVERIES = 300


class CountingSender:
    """Takes everything, and tells when it has taken as much as was expected."""

    limits = SendingLimits(batch=50)
    only_target = "counter"

    def __init__(self, expecting: int) -> None:
        self.sent = 0
        self.all_sent = asyncio.Event()
        self._expecting = expecting

    def target(self, content: Message) -> str:
        return self.only_target

    async def send(
        self, batch: Sequence[Work[Message]], record: RecordProviderId[Message]
    ) -> Sequence[Outcome]:
        self.sent += len(batch)
        if self.sent >= self._expecting:
            self.all_sent.set()
        return [Outcome.delivered() for _ in batch]

    async def reconcile(self, work: Work[Message]) -> Outcome | None:
        return None

    async def close(self) -> None:
        pass


@pytest.fixture
def pooled_url(database_url: str) -> Iterator[str]:
    """The test's database behind PgBouncer in transaction mode."""
    parts = urlsplit(database_url)
    query = parse_qs(parts.query)
    host = query.get("host", [parts.hostname or "127.0.0.1"])[0]
    server_port = query.get("port", [str(parts.port or 5432)])[0]
    user = parts.username or query.get("user", ["allim"])[0]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="allim-pooler-"))
    name = parts.path.removeprefix("/")
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{name} = host={host} port={server_port} user={user}\n"
        f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\nauth_type=any\n"
        f"pool_mode=transaction\ndefault_pool_size=4\nmax_client_conn=100\nunix_socket_dir=\n"
    )
    folder.chmod(0o755)
    assert PGBOUNCER is not None
    process = subprocess.Popen(
        [PGBOUNCER, "-q", str(folder / "pgbouncer.ini")],
        stderr=subprocess.DEVNULL,
        user=_unprivileged(host),
    )
    try:
        url = f"postgresql://{user}@127.0.0.1:{port}/{name}"
        _wait_until_it_answers(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)
        shutil.rmtree(folder)


def _unprivileged(socket_directory: str) -> int | None:
    """PgBouncer refuses to run as root: run it as whoever owns the server's socket."""
    if os.geteuid() != 0:
        return None
    owner = Path(socket_directory).stat() if socket_directory.startswith("/") else None
    return owner.st_uid if owner and owner.st_uid else pwd.getpwnam("nobody").pw_uid


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        assert process.poll() is None, "pgbouncer ended"
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
            continue
        return
    raise DatabaseUnavailable("pgbouncer does not answer")


async def test_a_pooler_is_noticed_and_a_relay_drains_through_it(pooled_url: str) -> None:
    with psycopg.connect(pooled_url, autocommit=True, prepare_threshold=None) as connection:
        connection.execute(
            "INSERT INTO notification (id, source, type)"
            " SELECT gen_random_uuid(), 's', 't' FROM generate_series(1, %s)",
            [DELIVERIES],
        )
        connection.execute(
            "INSERT INTO delivery (notification_id, channel, max_attempts)"
            " SELECT id, 'LOG', 8 FROM notification"
        )
    async with Database(pooled_url) as database:
        assert database.pooler
        sender = CountingSender(expecting=DELIVERIES)
        relays = [
            Relay(DeliveryBox(database), [Lane("LOG", sender)], wake=WakeSignal()) for _ in range(2)
        ]
        running = [asyncio.create_task(relay.run()) for relay in relays]
        async with asyncio.timeout(30):
            await sender.all_sent.wait()
        for relay in relays:
            relay.stop()
        await asyncio.gather(*running)
        rows = await database.fetch("SELECT status, count(*) FROM delivery GROUP BY status")
    assert rows == [("SUCCESS", DELIVERIES)]
    assert sender.sent == DELIVERIES


async def test_a_waker_leaves_no_setting_behind_on_a_connection_of_the_pooler(
    pooled_url: str, database_url: str
) -> None:
    async with (
        Database(pooled_url) as database,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as direct,
    ):
        await direct.execute("LISTEN allim_wake")
        async with Waker(database) as waker:
            waker.wake({"LOG"})
            notices = [notice async for notice in direct.notifies(timeout=10, stop_after=1)]
        assert [notice.payload for notice in notices] == [f"{waker.name} LOG"]
        # The pooler lends out again what the waker had.
        shown = await database.fetch("SHOW synchronous_commit")
        assert shown == [("on",)]


async def test_many_wakes_of_several_wakers_go_out_through_it(
    pooled_url: str, database_url: str
) -> None:
    async with (
        Database(pooled_url) as database,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as direct,
        Waker(database) as one,
        Waker(database) as another,
    ):
        threaded = ThreadedWaker(pooled_url)
        await direct.execute("LISTEN allim_wake")
        # Often enough for psycopg to prepare a statement, which each would call the same.
        for waker in (one, another, threaded):
            for _ in range(8):
                waker.wake({"LOG"})
                assert [n async for n in direct.notifies(timeout=10, stop_after=1)]
        await asyncio.to_thread(threaded.close)


async def test_the_sync_its_schedule_and_its_chain_work_through_it(pooled_url: str) -> None:
    settings = {"DATABASE_URL": pooled_url, "LMS_KIND": "sample", "JOB_LOCK_SECONDS": "3"}
    with an_empty_directory() as place:
        await _sync_and_send(place, pooled_url, settings)


async def _sync_and_send(place: Path, pooled_url: str, settings: Mapping[str, str]) -> None:
    async with programs(place) as start:
        api = await start("api", **settings)
        scheduler = await start("schedule", "run", until="the scheduler runs", **settings)
        body = {"category_id": 303, "max_users_per_course": 500}
        status, first = await api.call("POST", "/jobs/enrolment-sync", json=body)
        assert (status, first["ok"]) == (200, True)
        _, made = await api.call(
            "POST",
            "/schedules",
            json={
                "name": "pooled",
                "job": "enrolment-sync",
                "parameters": {"category_id": 303},
                "cron": "0 0 1 1 *",
            },
        )
        await api.call("POST", f"/schedules/{made['id']}/fire")
        await scheduler.says("schedule pooled: ended")
        _, shown = await api.call("GET", f"/schedules/{made['id']}")
        assert shown["last_fire"]["status"] == "SUCCESS"
        sizes = {"sheet_batch_size": 500, "notification_batch_size": 500}
        _, sent = await api.call("POST", "/jobs/outbox/dispatch", json=sizes)
        with psycopg.connect(pooled_url, prepare_threshold=None) as connection:
            alerts = connection.execute("SELECT count(*) FROM alert").fetchone()
            locks = connection.execute("SELECT count(*) FROM job_lock").fetchone()
        assert alerts is not None
        assert alerts[0] > first["summary"]["created_alerts"]
        assert sent["notification"]["sent"] == sent["sheet"]["sent"] == alerts[0]
        assert locks == (0,)
        assert await scheduler.terminate() == 0
        assert await api.terminate() == 0
