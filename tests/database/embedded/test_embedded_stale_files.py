"""A lock file whose pid went to another program is cleared, and that program left alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from allim.database.embedded import EmbeddedServer, postmaster
from allim.database.embedded.postmaster import Postmaster

Value = Callable[[str, str], Any]

# Writes down every signal that can be caught, and ends on none of them.
STRANGER = """
for name in HUP INT QUIT TERM USR1 USR2; do trap "echo $name" $name; done
echo ready
while read -r line; do :; done
"""


@pytest.fixture
def stranger(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program of the server's user: only of such a one does PostgreSQL stand in awe."""
    uid = (home / "postgres" / "data").stat().st_uid
    process = subprocess.Popen(
        ["/bin/sh", "-c", STRANGER],
        user=uid if uid != os.geteuid() else None,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    assert process.poll() is None
    assert process.communicate()[0] == ""  # ends its input; no signal was noted


def left_behind(home: Path, pid: int) -> None:
    """The files of a server that died with its machine, and whose pid is in use again."""
    directory = home / "postgres"
    lines = [pid, directory / "data", 1700000000, 5432, directory, "", "  5432001    131072", ""]
    for name in ("data/postmaster.pid", ".s.PGSQL.5432.lock"):
        path = directory / name
        path.write_text("\n".join(map(str, lines)))
        os.chown(path, directory.stat().st_uid, directory.stat().st_gid)
        path.chmod(0o600)


def test_a_pid_of_another_program(
    home: Path, stranger: subprocess.Popen[str], value: Value
) -> None:
    left_behind(home, stranger.pid)

    with EmbeddedServer.open(home) as server:
        assert value(server.url, "SELECT 1") == 1

    assert stranger.poll() is None


def test_stopping_leaves_another_program_alone(home: Path, stranger: subprocess.Popen[str]) -> None:
    left_behind(home, stranger.pid)
    assert EmbeddedServer.stop(home, even_if_used=True) is False
    assert stranger.poll() is None


def test_a_pid_of_the_server_of_another_home(home: Path, copied_home: Path, value: Value) -> None:
    with EmbeddedServer.open(copied_home) as other:
        its_postmaster = Postmaster.of(other.data)
        assert its_postmaster is not None
        left_behind(home, its_postmaster.pid)

        with EmbeddedServer.open(home) as server:
            assert value(server.url, "SHOW data_directory") == str(home / "postgres" / "data")

        assert value(other.url, "SELECT 1") == 1
        assert Postmaster.of(other.data) == its_postmaster


def test_a_pid_of_a_process_that_nobody_buried(home: Path, value: Value) -> None:
    zombie = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    left_behind(home, zombie.pid)

    with EmbeddedServer.open(home) as server:
        assert value(server.url, "SELECT 1") == 1
    zombie.wait()


@pytest.mark.parametrize("content", ["", "garbage\n", "-7\n"])
def test_a_file_that_is_empty_or_garbled(home: Path, value: Value, content: str) -> None:
    (home / "postgres" / "data" / "postmaster.pid").write_text(content)

    with EmbeddedServer.open(home) as server:
        assert value(server.url, "SELECT 1") == 1


def test_without_proc_the_server_is_known_by_its_command_line(
    home: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedServer.open(home) as server:
        by_proc = Postmaster.of(server.data)
        monkeypatch.setattr(postmaster, "PROC", workplace / "no proc")
        assert Postmaster.of(server.data) == by_proc
        assert by_proc is not None
        assert by_proc.is_running()
        pid_file = server.data / "postmaster.pid"
        right = pid_file.read_text()
        pid_file.write_text(right.replace(str(by_proc.pid), str(os.getpid()), 1))
        assert Postmaster.of(server.data) is None
        pid_file.write_text(right)
    assert Postmaster.of(server.data) is None


def test_a_server_that_does_not_answer_is_replaced(
    home: Path, monkeypatch: pytest.MonkeyPatch, value: Value
) -> None:
    with EmbeddedServer.open(home) as server:
        deaf = Postmaster.of(server.data)
        # Not less: the server that replaces it has no more time than this to answer.
        monkeypatch.setattr("allim.database.embedded.cluster.DEAF_SECONDS", 4.0)
        (home / "postgres" / ".s.PGSQL.5432").unlink()

        with EmbeddedServer.open(home):
            assert Postmaster.of(server.data) != deaf
            assert value(server.url, "SELECT 1") == 1
