"""Who may read learns what happened, not how to post there, too."""

from __future__ import annotations

from typing import Any

import pytest

from allim.database.pool import Database
from allim.hub.redaction import HIDDEN
from tests.hub.conftest import Api

SLACK = "https://hooks.slack.com/services/T000/B000/SECRETPATH"
HOOK = "https://crm.example/hook?token=SECRETQUERY"
HEADERS = {"authorization": "Bearer SECRETHEADER", "X-Team": "a"}
WEBHOOK: dict[str, Any] = {
    "channel": "WEBHOOK",
    "recipient": HOOK,
    "payload": {"headers": HEADERS, "subscription": {"keys": "SECRETKEY"}, "body": {"n": 1}},
}
NOTIFICATION: dict[str, Any] = {
    "source": "shop",
    "type": "T",
    "message": "m",
    "deliveries": [
        {
            **WEBHOOK,
            "fallback": [{"channel": "SLACK", "recipient": SLACK, "then": [WEBHOOK]}],
        },
        {"channel": "SLACK", "recipient": SLACK},
        {"channel": "EMAIL", "recipient": "kim@example.com"},
    ],
}


async def test_secrets_of_deliveries_are_stored_whole_and_shown_to_nobody(
    api: Api, database: Database
) -> None:
    created = await api.create(NOTIFICATION, Idempotency_Key="k")
    assert [d["recipient"] for d in created.json["deliveries"]] == [HOOK, SLACK, "kim@example.com"]
    again = await api.create(NOTIFICATION, Idempotency_Key="k")
    assert (again.headers["Idempotency-Replayed"], again.body) == ("true", created.body)
    notification = created.json["id"]
    hook = created.json["deliveries"][0]["id"]
    async with database.transaction() as tx:
        await tx.execute("UPDATE delivery SET status = 'DEAD' WHERE id = %(id)s", {"id": hook})
    answers = [
        await api.get("/notifications"),
        await api.get(f"/notifications/{notification}"),
        await api.get("/deliveries"),
        await api.get("/deliveries", params={"recipient": HOOK}),
        await api.get(f"/deliveries/{hook}"),
        await api.post(f"/deliveries/{hook}/retry"),
        await api.post(f"/notifications/{notification}/cancel"),
    ]

    for at, answer in enumerate(answers):
        assert answer.status == 200
        assert b"SECRET" not in answer.body, at
        assert b"https://crm.example/" in answer.body, at
    found = answers[3].json["items"]
    assert [each["id"] for each in found] == [hook], "it is looked for by the whole address"
    assert found[0]["payload"] == {
        "headers": dict.fromkeys(HEADERS, HIDDEN),
        "subscription": {"keys": HIDDEN},
        "body": {"n": 1},
    }
    assert found[0]["fallback"][0]["then"][0]["payload"] == found[0]["payload"]
    assert answers[1].json["deliveries"][2]["recipient"] == "kim@example.com"
    [(recipient, payload)] = await database.fetch(
        "SELECT recipient, payload FROM delivery WHERE id = %(id)s", {"id": hook}
    )
    assert (recipient, payload) == (HOOK, WEBHOOK["payload"])


async def test_endpoints_and_replays_show_no_secret_either(api: Api) -> None:
    made = await api.post("/endpoints", json={"url": HOOK})
    assert made.json["url"] == HOOK
    replay = await api.post("/replays", json={"filter": {"recipient": SLACK}})

    number, job = made.json["id"], replay.json["id"]
    for answer in (
        await api.get("/endpoints"),
        await api.post(f"/endpoints/{number}/rotate"),
        await api.post(f"/endpoints/{number}/retire"),
        await api.post(f"/endpoints/{number}/enable"),
        await api.get("/replays"),
        await api.get(f"/replays/{job}"),
    ):
        assert answer.status == 200
        assert b"SECRET" not in answer.body
        assert b"/\xe2\x80\xa6 #" in answer.body


@pytest.mark.parametrize("path", ["/deliveries", "/notifications"])
async def test_a_channel_that_nobody_knows_is_no_filter(api: Api, path: str) -> None:
    refused = await api.get(path, params={"channel": "PIGEON"})
    assert refused.status == 422
    assert [(e["place"], e["code"]) for e in refused.json["errors"]] == [
        ("channel", "unknown_channel")
    ]
    assert (await api.get(path, params={"channel": "slack"})).status == 200


async def test_nor_is_it_a_replays(api: Api) -> None:
    body = {"filter": {"channel": "PIGEON"}, "dry_run": True}
    refused = await api.post("/replays", json=body)
    assert refused.status == 422
    assert refused.json["errors"][0]["place"] == "/filter/channel"
