"""The database goes away under load and comes back: nobody's attempts are spent on that."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from allim.database.embedded import EmbeddedServer
from allim.database.embedded.postmaster import Postmaster
from allim.database.migrate import migrate
from allim.testing.http import HttpSink
from tests.crash.conftest import Deliveries, Launch, arrivals, until

COUNT = 300


async def test_a_restart_of_the_database_spends_no_attempts(
    home: Path, sink: HttpSink, launch: Launch
) -> None:
    server = await asyncio.to_thread(EmbeddedServer.open, home)
    migrate(server.url)
    deliveries = Deliveries(server.url)
    relay = await launch(server.url)
    await deliveries.add(sink, COUNT)

    for share in (COUNT // 4, COUNT // 2):
        await sink.received(share)
        postmaster = Postmaster.of(server.data)
        assert postmaster is not None
        # «Immediate shutdown»: as a crash, with recovery at the next start.
        os.kill(postmaster.pid, signal.SIGQUIT)

        async def it_is_gone(postmaster: Postmaster = postmaster) -> bool:
            return not postmaster.is_running()

        await until(it_is_gone, "the server to go")
        again = await asyncio.to_thread(EmbeddedServer.open, home)
        assert again.url == server.url
        again.close(leave_running=True)
    await until(deliveries.are_final, "every delivery to end")
    relay.send(signal.SIGTERM)
    assert await relay.death() == 0

    found = await deliveries.all()
    assert len(found) == COUNT
    for row in found:
        assert (row["status"], row["retry_count"]) == ("SUCCESS", 0)
        assert len(row["log"]) == row["attempts"]
        assert row["log"][-1] == "DELIVERED"
        assert set(row["log"][:-1]) <= {"UNKNOWN", "FAULT", "SNOOZED", "RELEASED"}
    times = arrivals(sink)
    assert len(times) == COUNT
    for row in found:
        path = row["recipient"].removeprefix(sink.url)
        # Whatever arrived twice was in doubt once: its attempt says so.
        assert times[path] <= row["attempts"]
    await asyncio.to_thread(server.close)
