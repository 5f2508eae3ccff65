"""Who may read learns what happened, not how to post there, too."""

from __future__ import annotations

from typing import Any

import pytest

from allim.database.pool import Database
from allim.hub.redaction import HIDDEN
from tests.hub.conftest import Api, Start

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


SENDER, READER, OPERATOR = ({"Authorization": f"Bearer {who}-secret-0123456789"} for who in "sro")


@pytest.fixture
async def guarded(start_api: Start) -> Api:
    keys = ",".join(
        f"{who}:{who}-secret-0123456789:{scopes}"
        for who, scopes in {"s": "send+read", "r": "read", "o": "operate"}.items()
    )
    return await start_api(ALLIM_API_KEYS=keys)


async def test_secrets_of_deliveries_are_shown_to_senders_alone(
    guarded: Api, database: Database
) -> None:
    created = await guarded.create(NOTIFICATION, **SENDER)
    assert [d["recipient"] for d in created.json["deliveries"]] == [HOOK, SLACK, "kim@example.com"]
    notification = created.json["id"]
    hook = created.json["deliveries"][0]["id"]
    async with database.transaction() as tx:
        await tx.execute("UPDATE delivery SET status = 'DEAD' WHERE id = %(id)s", {"id": hook})
    searched = {"recipient": HOOK}
    answers = [
        await guarded.get("/notifications", headers=READER),
        await guarded.get(f"/notifications/{notification}", headers=READER),
        await guarded.get("/deliveries", headers=READER),
        await guarded.get("/deliveries", params=searched, headers=READER),
        await guarded.get(f"/deliveries/{hook}", headers=READER),
        await guarded.post(f"/deliveries/{hook}/retry", headers=OPERATOR),
        await guarded.post(f"/notifications/{notification}/cancel", headers=OPERATOR),
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
    known = await guarded.get(f"/deliveries/{hook}", headers=SENDER)
    assert (known.json["recipient"], known.json["payload"]) == (HOOK, WEBHOOK["payload"])
    whole = await guarded.get(f"/notifications/{notification}", headers=SENDER)
    assert whole.json["deliveries"][0]["recipient"] == HOOK
    [(recipient, payload)] = await database.fetch(
        "SELECT recipient, payload FROM delivery WHERE id = %(id)s", {"id": hook}
    )
    assert (recipient, payload) == (HOOK, WEBHOOK["payload"])


async def test_those_of_endpoints_and_replays_to_operators_alone(guarded: Api) -> None:
    made = await guarded.post("/endpoints", json={"url": HOOK}, headers=OPERATOR)
    assert made.json["url"] == HOOK
    wanted = {"filter": {"recipient": SLACK}}
    job = (await guarded.post("/replays", json=wanted, headers=OPERATOR)).json["id"]

    for path in ("/endpoints", "/replays", f"/replays/{job}"):
        answer = await guarded.get(path, headers=READER)
        assert answer.status == 200
        assert b"SECRET" not in answer.body
        assert b"/\xe2\x80\xa6 #" in answer.body
        assert b"SECRET" in (await guarded.get(path, headers=OPERATOR)).body


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
