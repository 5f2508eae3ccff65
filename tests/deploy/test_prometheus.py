"""Alerts and dashboard: of metrics that there are, and each alert tried by promtool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from allim.database.pool import Database
from tests.deploy.surroundings import DEPLOY, ROOT, as_yaml, loaded
from tests.programs import an_empty_directory, programs

RULES = DEPLOY / "prometheus" / "allim.rules.yml"
DASHBOARD = DEPLOY / "grafana" / "allim.json"
RUNBOOK = ROOT / "docs" / "runbook" / "alerts.md"
NAME = re.compile(r"\b(?:allim|process)_[a-z_]+")
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)

Case = tuple[Mapping[str, str], int, Mapping[str, str]]
DUE = 'allim_oldest_due_seconds{box="delivery",channel="EMAIL",instance="%s"}'
DEAD = 'allim_dead{box="delivery",channel="EMAIL"}'
UP = 'allim_database_up{instance="a"}'
LANE = {"channel": "EMAIL"}
BOXED = {"box": "delivery", "channel": "EMAIL"}

# Series (promtool's notation, a sample a minute), after how many minutes, and labels of the alert.
FIRES: Mapping[str, Sequence[Case]] = {
    "AllimWorkLate": [({DUE % "a": "0x5 400x20", DUE % "b": "0x25"}, 12, BOXED)],
    "AllimWorkVeryLate": [({DUE % "a": "2000x20"}, 6, BOXED)],
    "AllimDeadLettersGrow": [
        ({DEAD: "3x20 5x20", UP: "1x40"}, 25, BOXED),
        ({DEAD: "_x20 1x20", UP: "1x40"}, 25, BOXED),
    ],
    "AllimBreakerOpen": [
        (
            {'allim_breaker_open{channel="EMAIL",target="mx"}': "1x20"},
            12,
            {**LANE, "target": "mx"},
        )
    ],
    "AllimNoRelay": [
        ({'up{job="allim-relay",instance="a"}': "1x5 0x20"}, 10, {}),
        ({'up{job="allim-api",instance="a"}': "1x20"}, 10, {}),
    ],
    "AllimDatabaseDown": [({UP: "1x5 0x10"}, 9, {})],
    "AllimLeasesRescued": [
        ({'allim_rescues_total{channel="EMAIL"}': "_x20 3x20"}, 22, LANE),
        ({'allim_rescues_total{channel="EMAIL"}': "3x20 7x20"}, 24, LANE),
    ],
    "AllimSettlesRefused": [
        ({'allim_settles_refused_total{channel="EMAIL"}': "_x20 1x20"}, 22, LANE),
        ({'allim_settles_refused_total{channel="EMAIL"}': "3x20 7x20"}, 24, LANE),
    ],
    "AllimSlotLag": [({'allim_slot_lag_seconds{slot="7"}': "200x20"}, 6, {"slot": "7"})],
    "AllimSlotsUnread": [({"allim_slots_unread": "64x20"}, 5, {})],
    "AllimKeysBlocked": [({"allim_blocked_keys": "1x20"}, 17, {})],
    "AllimPublisherPaused": [
        ({'allim_publisher_paused{publisher="kafka"}': "1x20"}, 7, {"publisher": "kafka"})
    ],
    "AllimSolapiBalance": [
        ({'allim_attempts_total{channel="SMS",reason="solapi_balance"}': "_x20 1x9"}, 22, {}),
        ({'allim_attempts_total{channel="SMS",reason="solapi_balance"}': "3x20 7x9"}, 24, {}),
    ],
    "AllimTenantBalance": [
        ({'allim_attempts_total{channel="SMS",reason="insufficient_balance"}': "2x20 9x9"}, 24, {})
    ],
    "AllimChannelMocked": [
        (
            {
                'allim_channel_mode{channel="EMAIL",mode="mock"}': "1x90",
                'allim_claimed_total{channel="EMAIL"}': "3x70 9x20",
            },
            75,
            LANE,
        )
    ],
    "AllimChannelNotConfigured": [
        (
            {
                'allim_channel_mode{channel="EMAIL",mode="not_configured"}': "1x90",
                'allim_claimed_total{channel="EMAIL"}': f"{claimed} 9x20",
            },
            75,
            LANE,
        )
        for claimed in ("_x70", "3x70")
    ],
    "AllimSyncFails": [
        ({'allim_sync_failed_runs{category="303"}': "2x5 3x5"}, 7, {"category": "303"})
    ],
}

HEALTHY = {
    DUE % "a": "200x20 2000x4 0x35",
    DEAD: "5x30 3x30",
    UP: "1x40 0 1x18",
    'allim_database_up{instance="b"}': "1x20 0x40",
    'allim_breaker_open{channel="EMAIL",target="mx"}': "0x20 1x8 stale",
    'up{job="allim-relay",instance="a"}': "1x30 0x30",
    'up{job="allim-relay",instance="b"}': "0x32 1x27",
    'allim_rescues_total{channel="EMAIL"}': "3x60",
    'allim_settles_refused_total{channel="EMAIL"}': "1x60",
    'allim_slot_lag_seconds{slot="7"}': "1x30 300x3 1x27",
    "allim_slots_unread": "0x20 64x2 0x36",
    "allim_blocked_keys": "0x20 1x10 0x30",
    'allim_publisher_paused{publisher="kafka"}': "0x20 1x4 0x36",
    'allim_attempts_total{channel="SMS",reason="solapi_balance"}': "4x60",
    'allim_attempts_total{channel="SMS",reason="insufficient_balance"}': "4x60",
    'allim_channel_mode{channel="EMAIL",mode="live"}': "1x60",
    'allim_channel_mode{channel="SMS",mode="not_configured"}': "1x60",
    'allim_channel_mode{channel="ALIMTALK",mode="mock"}': "1x60",
    'allim_claimed_total{channel="EMAIL"}': "0+5x60",
    'allim_sync_failed_runs{category="303"}': "2x30 0x30",
}
"""What comes and goes where all is well. Nothing may ring once the first quarter is over."""


def rules() -> Mapping[str, Mapping[str, Any]]:
    return {rule["alert"]: rule for group in loaded(RULES)["groups"] for rule in group["rules"]}


def queries() -> Iterator[str]:
    for rule in rules().values():
        yield rule["expr"]
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


async def test_every_metric_that_is_named_exists(database: Database, database_url: str) -> None:
    # A category that was synced shows its figure.
    await database.fetch(
        "INSERT INTO run_log (category_id, trigger_type) VALUES (1, 'MANUAL') RETURNING id"
    )
    with an_empty_directory() as place:
        async with programs(place) as start:
            allim = await start("up", DATABASE_URL=database_url)
            _, text = await allim.call("GET", "/metrics")
    shown = {
        name
        for family in text_string_to_metric_families(text)
        for name in (
            {
                "counter": [f"{family.name}_total"],
                "histogram": [f"{family.name}_{part}" for part in ("bucket", "sum", "count")],
            }.get(family.type, [family.name])
        )
    }
    named = {name for query in queries() for name in NAME.findall(query)}
    assert named
    assert named <= shown


def test_each_alert_leads_to_its_own_section_of_the_runbook() -> None:
    headings = set(re.findall(r"^## (\w+)$", RUNBOOK.read_text("utf-8"), re.MULTILINE))
    for name, rule in rules().items():
        assert rule["annotations"]["runbook"] == f"docs/runbook/alerts.md#{name.lower()}"
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
    assert headings == set(rules())


def test_each_alert_is_tried() -> None:
    assert set(FIRES) == set(rules())


def test_the_dashboard_begins_with_what_an_operator_looks_for() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    shown = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "stat"]
    assert shown == ["Oldest due work", "Backlog", "Attempts that failed", "Dead letters"]
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not taken & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


@promtool
def test_promtool_finds_nothing_wrong_with_rules_and_queries(tmp_path: Path) -> None:
    ended = subprocess.run(
        ["promtool", "check", "rules", "--lint-fatal", RULES], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    every = [{"record": f"query:{at}", "expr": query} for at, query in enumerate(queries())]
    asked = tmp_path / "queries.yml"
    asked.write_text(as_yaml({"groups": [{"name": "queries", "rules": every}]}))
    ended = subprocess.run(["promtool", "check", "rules", asked], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr + ended.stdout


@promtool
def test_the_scrape_configuration_is_valid() -> None:
    path = DEPLOY / "prometheus" / "prometheus.yml"
    ended = subprocess.run(
        ["promtool", "check", "config", "--syntax-only", path], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout


@promtool
def test_each_alert_rings_when_it_should_and_only_then(tmp_path: Path) -> None:
    cases = []
    for name, tried in FIRES.items():
        severity = rules()[name]["labels"]["severity"]
        for series, minutes, labels in tried:
            whole = {"alertname": name, "alertstate": "firing", "severity": severity, **labels}
            written = ",".join(f'{key}="{value}"' for key, value in whole.items())
            ringing = {"labels": f"ALERTS{{{written}}}", "value": 1}
            query = f'ALERTS{{alertname="{name}",alertstate="firing"}}'
            cases.append(_case(series, [_asked(query, minutes, [ringing])]))
    silent = [_asked('ALERTS{alertstate="firing"}', minutes, []) for minutes in range(16, 60)]
    cases.append(_case(HEALTHY, silent))
    path = tmp_path / "tried.yml"
    path.write_text(
        as_yaml(
            {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": cases},
        )
    )
    ended = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr + ended.stdout


def _case(series: Mapping[str, str], asked: Sequence[object]) -> Mapping[str, object]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": list(asked),
    }


def _asked(query: str, minutes: int, samples: Sequence[object]) -> Mapping[str, object]:
    return {"expr": query, "eval_time": f"{minutes}m", "exp_samples": list(samples)}
