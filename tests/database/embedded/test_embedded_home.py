"""The home: what is made in it, what is left as it is, and what is wrong with some."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from allim.base.errors import EmbeddedServerError
from allim.base.settings import Environment
from allim.database.embedded import EmbeddedServer, EmbeddedSettings, sockets
from allim.database.embedded.postmaster import Postmaster

Launch = Callable[..., Any]
Value = Callable[[str, str], Any]
WaitUntil = Callable[[Callable[[], object], str], None]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_setting_is_allim_home() -> None:
    assert Environment({}).read(EmbeddedSettings).allim_home == Path("./.allim")
    given = Environment({"ALLIM_HOME": "/srv/x"}).read(EmbeddedSettings)
    assert given.allim_home == Path("/srv/x")


def test_a_home_made_here_is_private_and_its_modes_are_as_they_were_elsewhere(
    workplace: Path, value: Value
) -> None:
    before = mode(workplace)
    (workplace / "there already").mkdir(mode=0o755)
    (workplace / "there already" / "file").write_text("kept")
    umask = os.umask(0o000)
    try:
        for home in (workplace / "new" / "home", workplace / "there already"):
            with EmbeddedServer.open(home) as server:
                assert server.data == home / "postgres" / "data"
                for private in (home / "postgres", server.data):
                    assert mode(private) == 0o700
                assert value(server.url, "SHOW listen_addresses") == ""
                assert (home / "postgres" / ".s.PGSQL.5432").is_socket()
                assert mode(home / "starting.lock") == mode(home / "using.lock") == 0o600
    finally:
        os.umask(umask)
    assert mode(workplace / "new" / "home") == 0o700
    assert mode(workplace / "there already") == 0o755
    assert mode(workplace) == before
    assert (workplace / "there already" / "file").read_text() == "kept"
    assert not (workplace / "there already" / ".gitignore").exists()


async def test_the_url_serves_every_driver_whatever_the_environment_says(
    home: Path, monkeypatch: pytest.MonkeyPatch, value: Value
) -> None:
    for name, wrong in (("PGHOST", "nowhere"), ("PGPORT", "1"), ("PGUSER", "x"), ("PGDATA", "/x")):
        monkeypatch.setenv(name, wrong)
    with EmbeddedServer.open(home) as server:
        assert value(server.url, "SELECT current_database() || current_user") == "allimallim"

        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("SELECT '알림'") == "알림"
        await connection.close()

        query = "SELECT lower('ÀÉ'), '알림'"
        psql: list[str | Path] = [server.binaries / "psql", "-XAtc", query, server.url]
        answer = subprocess.run(psql, capture_output=True, text=True, check=True).stdout
        assert answer == "àé|알림\n"


def test_the_server_is_set_for_utf8_utc_and_durability(home: Path, value: Value) -> None:
    expected = {
        "server_encoding": "UTF8",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "",
        "max_connections": "200",
    }
    with EmbeddedServer.open(home) as server:
        assert {name: value(server.url, f"SHOW {name}") for name in expected} == expected


@pytest.mark.parametrize(
    "name", ["알림 'home' % with, comma", "long-" * 25], ids=["awkward", "too long"]
)
def test_a_path_that_no_socket_can_have(copied_home: Path, name: str, value: Value) -> None:
    home = copied_home.rename(copied_home.with_name(name))
    with EmbeddedServer.open(home) as server, EmbeddedServer.open(home) as joined:
        directory = Path(value(server.url, "SHOW unix_socket_directories"))
        assert joined.url == server.url
        assert directory != home / "postgres"
        assert mode(directory) == 0o700
        assert directory.stat().st_uid == server.data.stat().st_uid
        assert len(os.fsencode(directory)) < 90
    assert not directory.exists()


def test_a_path_of_just_the_longest_length_is_used(copied_home: Path) -> None:
    within = "/postgres/.s.PGSQL.5432"
    missing = sockets.LONGEST_PATH_BYTES - len(f"{copied_home.parent}/{within[1:]}") - 1
    home = copied_home.rename(copied_home.with_name("h" * missing))
    assert len(f"{home}{within}") == sockets.LONGEST_PATH_BYTES
    with EmbeddedServer.open(home) as server:
        assert (home / "postgres" / ".s.PGSQL.5432").is_socket()
        assert server.url == sockets.url(home / "postgres")


def test_a_short_directory_that_is_not_ours_is_not_used(
    copied_home: Path, workplace: Path, value: Value
) -> None:
    home = copied_home.rename(copied_home.with_name("long-" * 25))
    (workplace / "trap").mkdir(mode=0o777)
    (workplace / "link").symlink_to(workplace / "trap")
    for trap in (workplace / "trap", workplace / "link", workplace / "nothing"):
        (home / "postgres" / "socket").write_text(str(trap))
        with EmbeddedServer.open(home) as server:
            directory = value(server.url, "SHOW unix_socket_directories")
            assert Path(directory) not in (workplace / "trap", workplace / "link")
    assert not list((workplace / "trap").iterdir())


def test_a_first_start_that_was_killed_leaves_nothing_broken(
    empty_home: Path, launch: Launch, wait_until: WaitUntil, value: Value
) -> None:
    process = launch(empty_home)
    postgres = empty_home / "postgres"
    wait_until(lambda: list(postgres.glob("unfinished-*/base/1")), "a half-made data directory")
    process.kill()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and str(postgres).encode() in _command_line(entry):
            os.kill(int(entry.name), signal.SIGKILL)
    assert not (postgres / "data").exists()

    with EmbeddedServer.open(empty_home) as server:
        assert value(server.url, "SELECT 1") == 1
    assert not list(postgres.glob("unfinished-*"))


def test_data_that_is_no_data_directory_is_an_error(empty_home: Path, home: Path) -> None:
    for name in ("postgres", "postgres/data"):
        (empty_home / name).mkdir(parents=True, mode=0o700)
        owner = (home / "postgres").stat()
        os.chown(empty_home / name, owner.st_uid, owner.st_gid)

    with pytest.raises(EmbeddedServerError, match="is there but is no PostgreSQL data directory"):
        EmbeddedServer.open(empty_home)


def test_a_private_directory_opened_to_others_is_an_error_and_stays_as_it_is(
    home: Path,
) -> None:
    (home / "postgres").chmod(0o755)

    with pytest.raises(EmbeddedServerError, match="chmod 700"):
        EmbeddedServer.open(home)

    assert mode(home / "postgres") == 0o755
    assert Postmaster.of(home / "postgres" / "data") is None


def test_a_home_that_is_a_file_is_an_error(empty_home: Path) -> None:
    empty_home.write_text("")
    with pytest.raises(EmbeddedServerError, match=r"cannot keep a database in .*Not a directory"):
        EmbeddedServer.open(empty_home)


def test_a_home_moved_while_in_use_can_still_be_closed(copied_home: Path, workplace: Path) -> None:
    server = EmbeddedServer.open(copied_home)
    copied_home.rename(workplace / "moved")
    server.close()
    assert EmbeddedServer.stop(workplace / "moved")


def _command_line(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""
