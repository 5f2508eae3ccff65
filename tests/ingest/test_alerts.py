"""Alerts of Alertmanager and Grafana: what is told, where, how often, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any

from allim.database.pool import Database
from tests.hub.conftest import Api, count
from tests.ingest.conftest import LOG, TakeRoutes, change, recipients, route, told
from tests.ingest.payloads import alert, alertmanager, grafana

AM = "/ingest/alertmanager"
KEYS = "am:a-very-long-secret-1:send+read,reader:a-very-long-secret-2:read"
KEYS += ",five:a-very-long-secret-5:send+read:5"


async def sent(api: Api, body: Any, path: str = AM, **headers: str) -> list[str]:
    answer = await api.post(path, json=body, headers=headers)
    assert answer.status == 202, answer.body
    made: list[str] = answer.json["notifications"]
    return made


async def test_a_group_becomes_one_notification_that_people_can_read(
    with_routes: TakeRoutes,
) -> None:
    api = await with_routes(route("all", priority="high"))
    group = alertmanager(
        alert(instance="a"), alert(instance="b"), alert("DiskFull", "resolved"), truncatedAlerts=3
    )

    (made,) = await sent(api, group)

    (one,) = await told(api)
    assert one["id"] == made
    assert (one["source"], one["type"], one["priority"]) == ("alertmanager", "ALERT_FIRING", "high")
    assert one["title"] == "[FIRING 2, RESOLVED 1] HighLatency + 1 service=checkout"
    paragraphs = one["message"].split("\n\n")
    assert paragraphs[0].split("\n") == [
        "FIRING HighLatency severity=critical instance=a",
        "p99 이 2 초를 넘었습니다",
        "p99 of db-1 is 2.31 s for 5 minutes.",
        "2026-11-21 01:02:03Z -",
        "runbook: https://runbooks.example.com/latency",
        "source: http://prometheus.example.com/graph?g0.expr=up",
    ]
    assert paragraphs[2].startswith("RESOLVED DiskFull severity=critical instance=db-1:9100\n")
    assert "2026-11-21 01:02:03Z - 2026-11-21 01:12:03Z" in paragraphs[2]
    assert paragraphs[3] == "+ 3 that allim left out"
    assert one["data"]["alerts"][0]["labels"]["instance"] == "a"
    assert one["data"]["alerts_left_out"] == 3
    assert api.woken == [{"LOG"}]


async def test_only_what_is_new_is_told(with_routes: TakeRoutes, database: Database) -> None:
    api = await with_routes(route("all"), INGEST_REMIND_SECONDS="3600")
    a, b = alert(instance="a"), alert(instance="b")

    async def titles(*alerts: dict[str, Any], **more: Any) -> list[str]:
        made = await sent(api, alertmanager(*alerts, **more))
        listed = {each["id"]: each["title"] for each in await told(api)}
        return [listed[each].partition("]")[0] + "]" for each in made]

    assert await titles(a) == ["[FIRING 1]"]
    assert await titles(a) == [], "a repeat"
    assert await titles(a, b) == ["[FIRING 1]"], "only the second is new"
    assert await titles(a, receiver="another") == ["[FIRING 1]"], "told to another receiver"
    assert await titles(a | {"startsAt": "2026-11-21T00:00:00Z"}, b) == [], "merged to earlier"

    await change(database, "UPDATE ingest_alert SET told_at = told_at - interval '59 minutes'")
    assert await titles(a, b) == []
    await change(database, "UPDATE ingest_alert SET told_at = told_at - interval '2 minutes'")
    assert await titles(a, b) == ["[STILL FIRING 2]"]
    assert await titles(a, b) == []

    ended = a | {"status": "resolved", "endsAt": "2026-11-21T02:00:00Z"}
    assert await titles(ended, b) == ["[RESOLVED 1]"]
    await change(database, "UPDATE ingest_alert SET told_at = told_at - interval '1 day'")
    assert await titles(ended) == [], "nobody is reminded of an end"
    assert await titles(a) == ["[FIRING 1]"], "back again, by the same start"
    later = a | {"startsAt": "2026-11-21T05:00:00Z"}
    assert await titles(later) == ["[FIRING 1]"], "its end was never told"


async def test_two_alertmanagers_tell_of_one_alert_once(
    with_routes: TakeRoutes, database: Database
) -> None:
    api = await with_routes(route("all"))
    group = alertmanager(*(alert(instance=str(at)) for at in range(50)))
    other = group | {"alerts": group["alerts"][::-1], "externalURL": "http://other.example.com"}

    made = await asyncio.gather(*(sent(api, body) for body in [group, other] * 8))

    assert sum(len(each) for each in made) == 1
    assert await count(database, "notification") == 1


async def test_alerts_go_by_their_labels(with_routes: TakeRoutes) -> None:
    api = await with_routes(
        route("quiet", "severity=none", deliveries=[]),
        route("pager", "severity=critical", **{"continue": True}),
        route("db", "team=~db|cache"),
        route("rest"),
    )
    group = alertmanager(
        alert(team="db"),
        alert("Slow", severity="low", team="cache"),
        alert("Odd", severity="low"),
        alert("Watchdog", severity="none"),
    )

    await sent(api, group)

    assert {
        (*recipients(each), each["title"].partition(" service")[0]) for each in await told(api)
    } == {
        ("pager", "[FIRING 1] HighLatency severity=critical"),
        ("db", "[FIRING 2] HighLatency + 1"),
        ("rest", "[FIRING 1] Odd severity=low"),
    }
    assert await sent(api, group) == []


async def test_a_channel_that_cannot_carry_it_all_is_told_in_brief(
    with_routes: TakeRoutes, database: Database
) -> None:
    deliveries = [
        LOG,
        {"channel": "LOG", "fallback": [{"channel": "SMS", "recipient": "01012345678"}]},
    ]
    api = await with_routes(route("all", deliveries=deliveries), SOLAPI_MOCK="true")
    wordy = alert()
    wordy["annotations"] = {"summary": "🔥 \u0000 결제", "description": "힣" * 5000}

    await sent(api, alertmanager(wordy))

    (one,) = await told(api)
    assert "🔥 ␀ 결제" in one["message"]
    rows = await database.fetch("SELECT payload, fallback_steps FROM delivery ORDER BY id")
    assert rows[0] == ({}, None)
    assert rows[1][0] == {}
    (text,) = rows[1][1]
    assert text["payload"]["message"].startswith("[FIRING 1] HighLatency severity=critical")
    assert "? ? 결제" in text["payload"]["message"]
    assert len(text["payload"]["message"].encode("cp949")) <= 900


async def test_a_group_of_any_size_is_taken(with_routes: TakeRoutes) -> None:
    api = await with_routes(route("all"))
    alerts = [alert(instance=str(at), fingerprint=f"{at:x}") for at in range(3000)]

    body = io.BytesIO(json.dumps(alertmanager(*alerts)).encode())
    answer = await api.post(AM, data=body, headers={"Content-Type": "application/json"})
    assert answer.status == 202

    (one,) = await told(api)
    assert one["title"].startswith("[FIRING 3000] ")
    assert "+ 2980 more" in one["message"]
    assert len(one["message"]) <= 20_000
    assert len(json.dumps(one["data"])) < 300_000
    assert len(one["data"]["alerts"]) + one["data"]["alerts_left_out"] == 3000


async def test_grafana_s_alerts_are_told_with_their_values_and_links(
    with_routes: TakeRoutes,
) -> None:
    api = await with_routes(route("all"))
    body = grafana()

    await sent(api, body, "/ingest/grafana")
    assert await sent(api, body, "/ingest/grafana") == []
    assert len(await sent(api, body | {"orgId": 2}, "/ingest/grafana")) == 1

    one = (await told(api))[0]
    assert one["source"] == "grafana"
    assert "B = 44.2394, C = 1" in one["message"]
    assert "dashboard: https://grafana.example.com/d/abc\n" in one["message"]
    assert "silence: https://grafana.example.com/alerting/silence/new?x=1" in one["message"]
    assert one["data"]["title"] == "[FIRING:1] HighLatency checkout"
    assert (one["data"]["org_id"], one["data"]["state"]) == (1, "alerting")


async def test_grafana_s_own_test_is_told(with_routes: TakeRoutes) -> None:
    api = await with_routes(route("all"))
    tried = alert("TestAlert", fingerprint="57c6d9296de2ad39") | {"annotations": None}
    body = grafana(tried, truncatedAlerts=0, groupLabels={"alertname": "TestAlert"})
    body["alerts"][0] |= {"values": None, "valueString": "[ metric='foo' value=10 ]"}

    assert len(await sent(api, body, "/ingest/grafana")) == 1


async def test_who_may_bring_alerts(with_routes: TakeRoutes) -> None:
    api = await with_routes(route("all"), ALLIM_API_KEYS=KEYS)

    def basic(password: str) -> dict[str, str]:
        pair = base64.b64encode(f"whoever:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}

    for headers, status in (
        ({}, 401),
        ({"Authorization": "Basic !!"}, 401),
        (basic("wrong-wrong-wrong"), 401),
        (basic("a-very-long-secret-2"), 403),
        (basic("a-very-long-secret-1"), 202),
        ({"Authorization": "Bearer a-very-long-secret-1"}, 202),
    ):
        answer = await api.post(AM, json=alertmanager(), headers=headers)
        assert answer.status == status, headers


async def test_a_tenant_s_key_tells_for_that_tenant(
    with_routes: TakeRoutes, database: Database
) -> None:
    api = await with_routes(
        route("six", "team=six", tenant_id=6), route("rest"), ALLIM_API_KEYS=KEYS
    )
    five = {"Authorization": "Bearer a-very-long-secret-5"}

    assert await sent(api, alertmanager(), **five)
    assert await sent(api, alertmanager(), Authorization="Bearer a-very-long-secret-1")
    refused = await api.post(AM, json=alertmanager(alert(team="six")), headers=five)
    assert (refused.status, refused.json["code"]) == (403, "tenant_mismatch")
    assert await sent(
        api, alertmanager(alert(team="six")), Authorization="Bearer a-very-long-secret-1"
    )

    rows = await database.fetch("SELECT tenant_id FROM notification ORDER BY created_at")
    assert [row[0] for row in rows] == [5, None, 6]


def without(name: str) -> dict[str, Any]:
    one = alert()
    del one[name]
    return alertmanager(one | {"labels": {"alertname": "x"}})


REFUSED: list[tuple[Any, int, str | None]] = [
    (b"{", 400, None),
    (b"[]", 422, ""),
    (alertmanager(version="3"), 422, "/version"),
    ({"version": "4"}, 422, "/alerts"),
    (without("fingerprint"), 422, "/alerts/0/fingerprint"),
    (without("startsAt"), 422, "/alerts/0/startsAt"),
    (alertmanager(alert() | {"status": "odd"}), 422, "/alerts/0/status"),
    (alertmanager(alert() | {"labels": {"a": 1}}), 422, "/alerts/0/labels/a"),
    (alertmanager(alert(starts="2026-11-21T01:02:03")), 422, "/alerts/0/startsAt"),
]


async def test_what_is_no_group_is_refused_with_its_place(with_routes: TakeRoutes) -> None:
    api = await with_routes(route("all"))
    for body, status, place in REFUSED:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()

        answer = await api.post(AM, data=raw, headers={"Content-Type": "application/json"})

        assert answer.status == status, answer.body
        if place is not None:
            assert place in [each["place"] for each in answer.json["errors"]]


async def test_without_routes_the_answer_says_so(start_api: Any) -> None:
    api = await start_api()
    for path, body in ((AM, alertmanager()), ("/ingest/grafana", grafana())):
        answer = await api.post(path, json=body)
        assert (answer.status, answer.json["code"]) == (403, "routes_not_set_up")


async def test_what_cannot_be_stored_now_may_be_sent_again(
    with_routes: TakeRoutes, database: Database
) -> None:
    api = await with_routes(route("all"))
    await change(database, "ALTER TABLE notification RENAME TO elsewhere")
    try:
        answer = await api.post(AM, json=alertmanager())
        assert answer.status >= 500, "which Alertmanager tries again"
    finally:
        await change(database, "ALTER TABLE elsewhere RENAME TO notification")
    assert len(await sent(api, alertmanager())) == 1, "nothing counts as told that was not"


async def test_what_was_told_long_ago_is_forgotten(
    with_routes: TakeRoutes, database: Database
) -> None:
    api = await with_routes(route("all"))
    await sent(api, alertmanager(alert("Old"), alert("Older")))
    await change(database, "UPDATE ingest_alert SET told_at = told_at - interval '91 days'")
    await sent(api, alertmanager(alert("New")))
    assert await count(database, "ingest_alert") == 1
