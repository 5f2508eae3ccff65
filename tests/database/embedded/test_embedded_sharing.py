"""Several processes share a server: the first one starts it, the last one out stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from allim.base.errors import EmbeddedServerError
from allim.database.embedded import EmbeddedServer
from allim.database.embedded.postmaster import Postmaster

Launch = Callable[..., Any]
Value = Callable[[str, str], Any]
WaitUntil = Callable[[Callable[[], object], str], None]

STARTED_AT = "SELECT pg_postmaster_start_time()::text"


def running(home: Path) -> Postmaster | None:
    return Postmaster.of(home / "postgres" / "data")


def test_six_first_starts_at_once_end_with_one_server(
    empty_home: Path, launch: Launch, value: Value
) -> None:
    processes = [launch(empty_home) for _ in range(6)]

    urls = [process.opened()["url"] for process in processes]

    assert len({value(url, STARTED_AT) for url in urls}) == 1
    for process in processes:
        assert running(empty_home)
        process.tell("close")
    assert running(empty_home) is None
    assert sorted(path.name for path in (empty_home / "postgres").iterdir()) == [
        "data",
        "server.log",
    ]


def test_the_last_one_out_stops_the_server(home: Path, launch: Launch, value: Value) -> None:
    first, second = launch(home), launch(home)
    url = second.opened()["url"]

    first.tell("close")
    assert value(url, "SELECT 1") == 1

    second.tell("close")
    assert running(home) is None
    assert "database system is shut down" in (home / "postgres" / "server.log").read_text()


def test_uses_within_one_process_count_one_by_one(home: Path, value: Value) -> None:
    with EmbeddedServer.open(home) as first:
        EmbeddedServer.open(home).close()
        assert value(first.url, "SELECT 1") == 1
    assert running(home) is None


def test_closing_twice_does_nothing(home: Path) -> None:
    first, second = EmbeddedServer.open(home), EmbeddedServer.open(home)
    first.close()
    first.close()
    assert running(home)
    second.close()
    assert running(home) is None


def test_a_killed_process_counts_as_gone(home: Path, launch: Launch, value: Value) -> None:
    killed, other = launch(home), launch(home)
    url = other.opened()["url"]
    killed.opened()

    killed.kill()

    assert value(url, "SELECT 1") == 1
    other.tell("close")
    assert running(home) is None


def test_a_server_whose_users_were_all_killed_is_joined(
    home: Path, launch: Launch, value: Value
) -> None:
    first, second = launch(home), launch(home)
    started = value(first.opened()["url"], STARTED_AT)
    second.opened()

    first.kill()
    second.kill()

    with EmbeddedServer.open(home) as server:
        assert value(server.url, STARTED_AT) == started
    assert running(home) is None


def test_a_server_left_running_stays_until_it_is_stopped(home: Path, value: Value) -> None:
    server = EmbeddedServer.open(home)
    server.close(leave_running=True)
    assert value(server.url, "SELECT 1") == 1

    assert EmbeddedServer.stop(home) is True

    assert running(home) is None
    assert EmbeddedServer.stop(home) is False


def test_a_server_left_running_goes_with_the_last_who_opens_it(home: Path) -> None:
    EmbeddedServer.open(home).close(leave_running=True)
    assert running(home)
    EmbeddedServer.open(home).close()
    assert running(home) is None


def test_stopping_is_refused_while_others_use_it(home: Path, launch: Launch) -> None:
    user = launch(home)
    pid = user.opened()["pid"]

    with pytest.raises(EmbeddedServerError, match=f"still used by other Allim .*pid {pid}"):
        EmbeddedServer.stop(home)
    assert running(home)

    assert EmbeddedServer.stop(home, even_if_used=True) is True
    assert running(home) is None


def test_stopping_what_never_was_makes_nothing(empty_home: Path) -> None:
    assert EmbeddedServer.stop(empty_home) is False
    assert not empty_home.exists()


def test_sigterm_of_the_last_process_stops_the_server(home: Path, launch: Launch) -> None:
    process = launch(home)
    process.opened()
    process.kill(signal.SIGTERM)
    assert process.process.returncode == 0
    assert running(home) is None


def test_control_c_on_the_terminal_does_not_reach_the_server(home: Path, launch: Launch) -> None:
    process = launch(home)
    process.opened()
    server = running(home)
    assert server is not None

    assert os.getpgid(server.pid) != os.getpgid(process.process.pid)
    assert os.getsid(server.pid) != os.getsid(process.process.pid)


def test_a_command_that_leaves_the_server_up_closes_its_output(home: Path) -> None:
    command = (
        "import sys; from pathlib import Path; from allim.database.embedded import EmbeddedServer\n"
        "server = EmbeddedServer.open(Path(sys.argv[1]))\n"
        "server.close(leave_running=True)\n"
        "print(server.url)"
    )

    ended = subprocess.run(
        [sys.executable, "-c", command, home], capture_output=True, text=True, timeout=60
    )

    assert ended.stdout.startswith("postgresql://")
    assert ended.stderr == ""
    assert running(home)


def test_a_fork_neither_stops_the_server_nor_keeps_its_lock(
    home: Path, wait_until: WaitUntil
) -> None:
    server = EmbeddedServer.open(home)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        server.close()
        os.close(write)
        os.read(read, 1)  # until the parent closes its end
        os._exit(0)
    assert running(home)

    server.close()

    assert running(home) is None
    EmbeddedServer.open(home).close()
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    os.close(read)
