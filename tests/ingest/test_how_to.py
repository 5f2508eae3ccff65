"""What the pages show can be used as it stands."""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.composition.diagnosis.findings import Verdict
from allim.composition.diagnosis.ingest_check import check_ingest
from allim.ingest.routing import Source, read_routes
from tests.requirements import needs_program

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
PAGES = ["prometheus-alertmanager", "github", "apprise"]


def blocks(page: str, language: str) -> list[str]:
    text = (HOW_TO / f"{page}.md").read_text(encoding="utf-8")
    return [textwrap.dedent(body) for _, kind, body in BLOCK.findall(text) if kind == language]


@pytest.mark.parametrize("page", PAGES)
async def test_the_routes_can_be_used(page: str, channels: Mapping[str, Channel]) -> None:
    (routes,) = blocks(page, "json")
    assert len(read_routes(routes, channels)) >= 2


async def test_the_doctor_speaks_of_routes(channels: Mapping[str, Channel]) -> None:
    (routes,) = blocks("github", "json")
    assert check_ingest(channels, Environment({})) == []
    first, second = check_ingest(channels, Environment({"INGEST_ROUTES": routes}))
    assert (first.verdict, second.verdict) == (Verdict.GOOD, Verdict.NOTE)
    assert first.words == "3 routes, for github"
    (keyed,) = blocks("apprise", "json")
    (found,) = check_ingest(channels, Environment({"INGEST_ROUTES": keyed}))
    assert found.words == "2 routes, for /notify/ops"
    (bad,) = check_ingest(channels, Environment({"INGEST_ROUTES": "[]"}))
    assert bad.verdict is Verdict.WRONG


async def test_what_the_routes_of_alerts_say_they_do(channels: Mapping[str, Channel]) -> None:
    (shown,) = blocks("prometheus-alertmanager", "json")
    routes = read_routes(shown, channels)

    def names(**labels: str) -> list[str]:
        return [each.name for each in routes.choose(Source.ALERTMANAGER, labels)]

    assert names(alertname="Watchdog") == ["watchdog"]
    firing = {"severity": "page", "team": "db", "ingest.status": "firing"}
    assert names(**firing) == ["pager", "database"]
    assert names(team="db") == ["rest"]


def test_alertmanager_takes_its_configuration(tmp_path: Path) -> None:
    amtool = needs_program("amtool")
    (config,) = blocks("prometheus-alertmanager", "yaml")
    file = tmp_path / "alertmanager.yml"
    file.write_text(config.replace("/etc/alertmanager/allim-key", str(file)))
    ended = subprocess.run(
        [amtool, "check-config", str(file)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_grafana_s_provisioning_is_whole() -> None:
    (config,) = blocks("grafana", "yaml")
    (point,) = yaml.safe_load(config)["contactPoints"]
    (receiver,) = point["receivers"]
    assert receiver["type"] == "webhook"
    assert receiver["settings"]["url"].endswith("/ingest/grafana")
