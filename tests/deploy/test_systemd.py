"""The units: real commands, time enough to end, and no more rights than needed."""

from __future__ import annotations

import shutil
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from allim.base.settings import Environment
from allim.composition.settings import RelaySettings, check
from tests.deploy.surroundings import DEPLOY, is_command, settings, variables

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
EXAMPLE = variables(DEPLOY / "systemd" / "allim.env.example")
BINARY = "/opt/allim/bin/allim"
analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def service(unit: Path) -> Mapping[str, Sequence[str]]:
    """The values of each key of [Service]; several where a key stands several times."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    section = ""
    for line in unit.read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif section == "Service" and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def own(unit: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in service(unit)["Environment"])
    return {name: value for name, _, value in pairs}


def test_there_is_a_unit_for_each_program() -> None:
    commands = {tuple(service(unit)["ExecStart"][0].split()) for unit in UNITS}
    assert all(is_command(command[1:]) and command[0] == BINARY for command in commands)
    assert {command[1:] for command in commands} == {
        ("api",),
        ("relay",),
        ("messaging-worker",),
        ("schedule", "run"),
    }


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: str(path.stem))
def test_a_unit_starts_with_the_example_and_has_time_to_end(unit: Path) -> None:
    given = {**own(unit), **EXAMPLE}
    assert set(given) <= settings()
    environment = check(Environment(given))
    grace = environment.read(RelaySettings).allim_shutdown_seconds
    assert int(service(unit)["TimeoutStopSec"][0]) > grace
    assert service(unit)["KillSignal"] == ["SIGTERM"]
    assert service(unit)["EnvironmentFile"] == ["/etc/allim/allim.env"]
    assert service(unit)["User"] == ["allim"]


def test_units_of_one_machine_do_not_take_each_others_ports() -> None:
    assert "ALLIM_RELAY_METRICS_PORT" not in EXAMPLE  # The file would win over the units.
    ports = [own(unit)["ALLIM_RELAY_METRICS_PORT"] for unit in UNITS if unit.stem != "allim-api"]
    assert len(set(ports)) == len(ports) == 3


@analyze
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    for unit in UNITS:
        # The program is not installed here.
        text = unit.read_text("utf-8").replace(BINARY, "/bin/true")
        (tmp_path / unit.name).write_text(text)
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir())],
        capture_output=True,
        text=True,
    )
    said = [line for line in ended.stderr.splitlines() if "allim" in line]
    assert not said
    # Other units of this machine are none of ours; but ours must not fail.
    assert ended.returncode == 0 or not said


@analyze
def test_a_unit_is_exposed_to_little(tmp_path: Path) -> None:
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True)
    if int(version.stdout.split()[1]) < 250:
        pytest.skip("this systemd-analyze does not look into files")
    for unit in UNITS:
        ended = subprocess.run(
            ["systemd-analyze", "security", "--offline=true", "--threshold=20", unit],
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
