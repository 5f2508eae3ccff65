"""The user that the server runs as: not root, never a new one, and no directory opened for it."""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from allim.base.errors import EmbeddedServerError
from allim.database.embedded import EmbeddedServer, binaries, places
from allim.database.embedded.account import Account
from allim.database.embedded.binaries import Installation
from allim.database.embedded.places import prepare_home
from allim.database.embedded.postmaster import Postmaster

Launch = Callable[..., Any]
Value = Callable[[str, str], Any]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change users")


def owner_of_server(data: Path) -> int:
    running = Postmaster.of(data)
    assert running is not None
    return Path(f"/proc/{running.pid}").stat().st_uid


def modes_up_from(path: Path) -> dict[Path, tuple[int, int]]:
    return {
        place: (stat.S_IMODE(place.stat().st_mode), place.stat().st_uid)
        for place in (path, *path.parents)
    }


@pytest.fixture
def closed_home(workplace: Path) -> Path:
    """A home that only root can get to, as under /root."""
    (workplace / "closed").mkdir(mode=0o700)
    return workplace / "closed" / "home"


@pytest.fixture
def home_of_nobody(workplace: Path) -> Path:
    directory = workplace / "nobody"
    directory.mkdir(mode=0o755)
    shutil.chown(directory, "nobody")
    return directory / "home"


def test_root_drops_to_a_user_that_is_there(home: Path) -> None:
    users = pwd.getpwall()
    with EmbeddedServer.open(home) as server:
        uid = Account.unprivileged().uid
        assert owner_of_server(server.data) == uid == server.data.stat().st_uid != 0
        groups = Path(f"/proc/{getattr(Postmaster.of(server.data), 'pid', 0)}/status").read_text()
        assert "Groups:\t \n" in groups or "Groups:\t\n" in groups
    assert pwd.getpwall() == users


def test_nobody_is_who_serves_where_there_is_no_postgres() -> None:
    assert Account.unprivileged(["no-such-user", "root", "nobody"]).name == "nobody"
    with pytest.raises(EmbeddedServerError, match="no user no-such-user"):
        Account.unprivileged(["no-such-user"])


def test_a_home_behind_a_closed_parent_is_served_elsewhere(
    closed_home: Path, caplog: pytest.LogCaptureFixture, value: Value
) -> None:
    closed_home.mkdir()
    before = modes_up_from(closed_home)
    with (
        caplog.at_level(logging.INFO, "allim.database"),
        EmbeddedServer.open(closed_home) as server,
    ):
        elsewhere = server.data.parent
        assert elsewhere.parent in places.FALLBACK_PARENTS
        assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700
        assert elsewhere.stat().st_uid == Account.unprivileged().uid
        assert f"cannot reach {closed_home}: the database is in {elsewhere}" in caplog.text
        value(server.url, "SELECT set_config('x.y', 'z', false)")
        assert owner_of_server(server.data) == Account.unprivileged().uid

    with EmbeddedServer.open(closed_home) as again:
        assert again.data == server.data
    assert modes_up_from(closed_home) == before
    assert (closed_home / "location").read_text() == f"{elsewhere}\n"


def test_a_moved_home_keeps_its_database_and_a_copied_one_begins_anew(closed_home: Path) -> None:
    home = prepare_home(closed_home)
    original = places.create(home)
    assert places.existing(home) == original

    copy = home.with_name("copy")
    shutil.copytree(home, copy)
    assert places.existing(copy) is None
    assert places.existing(home) == original

    moved = home.rename(home.with_name("moved"))
    found = places.existing(moved)
    assert found is not None
    assert found.directory == original.directory
    assert found.home == moved


def test_a_database_elsewhere_that_is_lost_is_an_error_not_an_empty_one(closed_home: Path) -> None:
    home = prepare_home(closed_home)
    shutil.rmtree(places.create(home).directory)
    with pytest.raises(EmbeddedServerError, match=r"says that the database is in .* not there"):
        EmbeddedServer.open(home)


def test_no_reachable_directory_at_all_is_an_error(closed_home: Path) -> None:
    home = prepare_home(closed_home)
    with pytest.raises(EmbeddedServerError, match="can reach neither"):
        places.create(home, fallback_parents=[closed_home.parent])


def test_programs_behind_a_closed_parent_are_copied(
    copied_home: Path, workplace: Path, value: Value
) -> None:
    bundled = next(binaries.installed_here())
    prefix = bundled.programs.parent
    package = workplace / "closed" / prefix.parent.name
    (workplace / "closed").mkdir(mode=0o700)
    shutil.copytree(prefix, package / prefix.name, ignore=shutil.ignore_patterns("include", "*.a"))
    libraries = prefix.parent.with_name(f"{prefix.parent.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, workplace / "closed" / libraries.name)
    before = modes_up_from(package / prefix.name / "bin" / "postgres")

    def closed() -> list[Installation]:
        return list(binaries.from_wheel(package))

    shutil.rmtree(copied_home / "postgres" / "data")  # so that initdb is a copy too
    for _ in range(2):
        with EmbeddedServer.open(copied_home, installations=closed) as server:
            assert server.binaries == package / prefix.name / "bin"
            assert value(server.url, "SELECT '알림'") == "알림"
            running = Postmaster.of(server.data)
            assert running is not None
            program = Path(f"/proc/{running.pid}/exe").readlink()
            assert program.is_relative_to(copied_home / "postgres")
    assert modes_up_from(package / prefix.name / "bin" / "postgres") == before
    assert len(list((copied_home / "postgres").glob("binaries-*"))) == 1


def test_programs_that_not_even_a_copy_makes_runnable_are_an_error(
    home: Path, workplace: Path
) -> None:
    closed = workplace / "closed" / "package" / "prefix" / "bin"
    closed.mkdir(parents=True)
    (workplace / "closed").chmod(0o700)
    for name in ("postgres", "initdb"):
        (closed / name).write_text("#!/nowhere\n")
    broken = Installation(programs=closed, version="18.0", source="test")
    with pytest.raises(EmbeddedServerError, match="nor a copy of it"):
        EmbeddedServer.open(home, installations=lambda: [broken])


def test_an_ordinary_user_runs_it_as_itself_and_root_goes_on_as_that_user(
    home_of_nobody: Path, launch: Launch, value: Value
) -> None:
    process = launch(home_of_nobody, "nobody")
    opened = process.opened()
    data = Path(opened["data"])

    assert data == home_of_nobody / "postgres" / "data"
    nobody = pwd.getpwnam("nobody").pw_uid
    assert owner_of_server(data) == data.stat().st_uid == nobody
    assert value(opened["url"], "SELECT 1") == 1
    process.tell("close")
    assert Postmaster.of(data) is None

    with EmbeddedServer.open(home_of_nobody) as server:
        assert owner_of_server(server.data) == nobody


def test_an_ordinary_user_is_told_what_it_may_not_do(
    copied_home: Path, workplace: Path, launch: Launch
) -> None:
    unwritable = launch(workplace / "home of nobody", "nobody").opened()["error"]
    assert "Permission denied" in unwritable
    assert "cannot keep a database in" in unwritable

    copied_home.chmod(0o755)
    others = launch(copied_home, "nobody").opened()["error"]
    assert f"{copied_home}/starting.lock" in others
    for lock in ("starting.lock", "using.lock"):
        (copied_home / lock).chmod(0o666)
    others = launch(copied_home, "nobody").opened()["error"]
    assert "belongs to user" in others
    assert "and this is nobody" in others
