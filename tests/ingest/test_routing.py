"""Routes: which one takes what, and what is said of those that cannot be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from allim.base.errors import ConfigurationError
from allim.channels.channel import Channel
from allim.ingest.matching import Labels, read_matcher
from allim.ingest.routing import Route, Source, read_routes
from tests.ingest.conftest import route


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("severity=critical", {"severity": "critical"}, True),
        (' severity = "critical" ', {"severity": "critical"}, True),
        ("severity=critical", {"severity": "critically"}, False),
        ("severity!=critical", {}, True),
        ("team=", {}, True),
        ('team=~"db|web-.*"', {"team": "web-1"}, True),
        ("team=~db", {"team": "db2"}, False),
        ("team!~db.*", {"team": "db2"}, False),
        (r'path="C:\\x \"y\""', {"path": r'C:\x "y"'}, True),
        (r'code=~"5\d\d"', {"code": "503"}, True),
        ("ingest.status=firing", {"ingest.status": "firing"}, True),
        ("tag=ops", {"tag": ["dev", "ops"]}, True),
        ("tag!=ops", {"tag": ["dev", "ops"]}, False),
        ("tag!=ops", {"tag": []}, True),
        ("tag=~.+", {"tag": []}, False),
        ("a.b=(", {"a.b": "("}, True),
    ],
)
def test_a_matcher_reads_as_alertmanagers_do(text: str, labels: Labels, expected: bool) -> None:
    assert read_matcher(text).matches(labels) is expected


def chosen(routes: list[dict[str, Any]], channels: Mapping[str, Channel], **labels: str) -> str:
    read = read_routes(json.dumps(routes), channels)
    return " ".join(each.name for each in read.choose(Source.ALERTMANAGER, labels))


async def test_the_first_route_takes_it_and_more_where_it_says_so(
    channels: Mapping[str, Channel],
) -> None:
    routes = [
        route("pager", "severity=critical", "team=db", **{"continue": True}),
        route("repository", sources=["github"]),
        route("team", "team=db"),
        route("keyed", key="ops"),
        route("rest"),
    ]
    assert chosen(routes, channels, severity="critical", team="db") == "pager team"
    assert chosen(routes, channels, severity="low", team="db") == "team"
    assert chosen(routes, channels, severity="critical") == "rest"
    read = read_routes(json.dumps(routes), channels)
    assert [r.name for r in read.choose(Source.GITHUB, {})] == ["repository"]
    assert [r.name for r in read.of_key("ops", {}) or ()] == ["keyed"]
    assert read.of_key("other", {}) is None


async def test_routes_may_stand_in_a_file(channels: Mapping[str, Channel], tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    file.write_text(json.dumps([route("all")]))
    assert len(read_routes(str(file), channels)) == 1
    with pytest.raises(ConfigurationError, match=r"INGEST_ROUTES \(.*none\.json\): No such file"):
        read_routes(str(tmp_path / "none.json"), channels)


WRONG: dict[str, tuple[Any, str]] = {
    "no JSON": ("[{]", "INGEST_ROUTES is not JSON: .* line 1 column 3"),
    "no list": ({}, "must be a JSON list of one route or more"),
    "empty": ([], "must be a JSON list of one route or more"),
    "no name": ([{"deliveries": []}], "route 1: name is required"),
    "an odd name": ([route("a b")], "route 1 \\('a b'\\): name "),
    "no deliveries": ([{"name": "a"}], r"route 1 \('a'\): deliveries is required"),
    "an unknown field": ([route("a", sverity="x")], "sverity is not a known field"),
    "an unknown channel": (
        [route("ok"), {"name": "b", "deliveries": [{"channel": "PIGEON"}]}],
        r"route 2 \('b'\): deliveries/0/channel must be one of: .*EMAIL",
    ),
    "a bad address deep down": (
        [
            {
                "name": "a",
                "deliveries": [
                    {"channel": "LOG", "fallback": [{"channel": "EMAIL", "recipient": "nobody"}]}
                ],
            }
        ],
        r"route 1 \('a'\): deliveries/0/fallback/0/recipient",
    ),
    "no matcher": ([route("a", "severity")], 'match/0 must be like severity="critical"'),
    "an open quote": ([route("a", 'x="y')], "match/0 has a quote that is not closed"),
    "a bad pattern": ([route("a", "x=~(")], "match/0 has a pattern that cannot be: missing"),
    "a row key": (
        [{"name": "a", "deliveries": [{"channel": "LOG", "row_key": "1"}]}],
        "a row_key is good once",
    ),
    "nothing for the rest": (
        [route("a", "severity=critical")],
        "no route takes what is left of alertmanager: .*grafana: .*github: ",
    ),
    "a key with sources": ([route("a", key="k", sources=["github"])], "has a key, so it can"),
    "one name twice": ([route("a"), route("a")], "the name 'a' is taken more than once"),
    "an unknown source": ([route("a", sources=["nagios"])], "sources/0 must be"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_route_stops_the_start_and_is_named(
    case: str, channels: Mapping[str, Channel]
) -> None:
    setting, expected = WRONG[case]
    with pytest.raises(ConfigurationError, match=expected):
        read_routes(setting if isinstance(setting, str) else json.dumps(setting), channels)


async def test_every_wrong_route_is_named_at_once(channels: Mapping[str, Channel]) -> None:
    routes = [route("a", "x"), {"name": "b", "deliveries": [{"channel": "PIGEON"}]}]
    with pytest.raises(ConfigurationError, match=r"route 1 \('a'\).*; route 2 \('b'\)"):
        read_routes(json.dumps(routes), channels)


def test_what_a_route_asks_for_is_what_was_set() -> None:
    deliveries = [
        {
            "channel": "ALIMTALK",
            "recipient": "01012345678",
            "template_code": "ALERT",
            "payload": {"variables": {"#{a}": "b"}},
            "max_attempts": 2,
            "fallback": [{"channel": "SMS"}],
            "then": [{"channel": "LOG", "title": "done"}],
        }
    ]
    read = Route.model_validate_json(json.dumps(route("a") | {"deliveries": deliveries}))
    assert read.asked() == deliveries
