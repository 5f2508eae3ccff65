"""Publishing over HTTP, and looking into the outbox."""

from __future__ import annotations

import base64
import io
import json
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from allim.database.pool import Database
from allim.events import RawEvent
from allim.events.publishing import Publisher
from allim.events.reading import EventFilter, EventReader
from allim.events.slots import slot_of
from allim.events.views import EventStatus
from allim.relay.ordered.relay import LANE
from tests.events.producer.conftest import KEY, Outbox, user_created
from tests.hub.conftest import Api, Start

EVENT: dict[str, Any] = {
    "topic": "user-events",
    "key": "7",
    "payload": {"name": "이", "n": [1, None]},
    "headers": {"eventType": "UserCreated"},
}
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


async def test_an_event_is_published_and_can_be_looked_at(api: Api, outbox: Outbox) -> None:
    answer = await api.post("/events", json=EVENT, headers={"traceparent": TRACE})
    assert answer.status == 202, answer.body
    (identity,) = answer.json["ids"]
    assert answer.json["stored"] == 1
    assert api.woken == [{LANE}]
    (row,) = outbox.rows()
    assert bytes(row["payload"]) == '{"name":"이","n":[1,null]}'.encode()
    assert row["slot"] == slot_of("7")
    shown = (await api.get(f"/events/{identity}")).json
    assert shown["headers"] == {"eventType": "UserCreated", "traceparent": TRACE}
    assert (shown["status"], shown["waiting"], shown["encrypted"]) == ("PENDING", False, False)
    assert (shown["payload"], shown["payload_base64"]) == (EVENT["payload"], None)
    assert (await api.get(f"/events/{uuid4()}")).status == 404


async def test_a_repeat_under_the_same_id_is_passed_over(api: Api, outbox: Outbox) -> None:
    event = {**EVENT, "event_id": str(uuid4())}
    answers = [(await api.post("/events", json=event)).json for _ in range(2)]
    assert [answer["stored"] for answer in answers] == [1, 0]
    assert answers[0]["ids"] == answers[1]["ids"] == [event["event_id"]]
    assert outbox.count() == 1


async def test_several_are_stored_together_or_not_at_all(api: Api, outbox: Outbox) -> None:
    raw = {"topic": "t", "key": None, "payload_base64": base64.b64encode(b"\x00\xff").decode()}
    answer = await api.post("/events", json=[EVENT, raw])
    assert (answer.status, answer.json["stored"]) == (202, 2)
    assert [bytes(row["payload"]) for row in outbox.rows()][1] == b"\x00\xff"
    shown = (await api.get(f"/events/{answer.json['ids'][1]}")).json
    assert (shown["payload"], shown["payload_base64"]) == (None, "AP8=")
    assert shown["content_type"] == "application/octet-stream"
    refused = await api.post("/events", json=[EVENT, {**raw, "payload_base64": "%"}])
    assert refused.status == 422
    assert [e["place"] for e in refused.json["errors"]] == ["/1/payload_base64"]
    assert outbox.count() == 2


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"topic": ""}, "/topic"),
        ({"topic": "a b"}, "/topic"),
        ({"topic": "."}, ""),
        ({"key": ""}, "/key"),
        ({"key": "가" * 400}, ""),
        ({"key": "a\0"}, "/key"),
        ({"key": ...}, "/key"),
        ({"payload": ...}, ""),
        ({"payload_base64": "AA=="}, ""),
        ({"payload": "x" * (1024 * 1024)}, "/payload"),
        ({"payload": {"a": [float("inf")]}}, ""),
        ({"headers": {"a": 1}}, "/headers/a"),
        ({"headers": {"eventId": "x"}}, ""),
        ({"event_id": "7"}, "/event_id"),
        ({"colour": 1}, "/colour"),
    ],
)
async def test_what_cannot_be_published_is_refused(
    api: Api, outbox: Outbox, changes: dict[str, Any], place: str
) -> None:
    body = {k: v for k, v in {**EVENT, **changes}.items() if v is not ...}
    answer = await api.post(
        "/events",
        data=io.BytesIO(json.dumps(body).encode()),
        headers={"content-type": "application/json"},
    )
    assert answer.status == 422, answer.body
    assert [e["place"] for e in answer.json["errors"]] == [place]
    assert outbox.count() == 0


async def test_bodies_are_bounded_and_json(api: Api, outbox: Outbox) -> None:
    assert (await api.post("/events", data=b"{")).status == 415
    json_type = {"content-type": "application/json"}
    assert (await api.post("/events", data=b"{", headers=json_type)).status == 400
    assert (await api.post("/events", json=[])).status == 422
    assert (await api.post("/events", json=[EVENT] * 501)).status == 422
    assert outbox.count() == 0


async def test_keys_need_the_scope_and_no_tenant(start_api: Start) -> None:
    api = await start_api(
        ALLIM_API_KEYS="s:ssssssssssssssssssssssss:send,r:rrrrrrrrrrrrrrrrrrrrrrrr:read,"
        "t:tttttttttttttttttttttttt:send+read:7"
    )

    def bearer(letter: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {letter * 24}"}

    assert (await api.post("/events", json=EVENT, headers=bearer("s"))).status == 202
    assert (await api.post("/events", json=EVENT, headers=bearer("r"))).status == 403
    assert (await api.get("/events", headers=bearer("r"))).status == 200
    assert (await api.get("/events", headers=bearer("s"))).status == 403
    for call in (api.post("/events", json=EVENT, headers=bearer("t")),
                 api.get("/events", headers=bearer("t"))):  # fmt: skip
        answer = await call
        assert (answer.status, answer.json["code"]) == (403, "tenant_key")


async def test_an_encrypted_payload_is_stored_sealed_and_never_shown(
    start_api: Start, outbox: Outbox
) -> None:
    api = await start_api(
        EVENTS_ENCRYPTION_KEYS=f"k:{base64.b64encode(KEY).decode()}",
        EVENTS_ENCRYPTED_TOPICS="user-*",
    )
    (identity,) = (await api.post("/events", json=EVENT)).json["ids"]
    assert b"name" not in bytes(outbox.rows()[0]["payload"])
    shown = (await api.get(f"/events/{identity}")).json
    assert (shown["encrypted"], shown["payload"], shown["payload_base64"]) == (True, None, None)


async def test_listings_are_filtered_and_paged(
    api: Api, publisher: Publisher, database_url: str
) -> None:
    events = [RawEvent(topic=f"t{n % 2}", key=f"k{n % 3}", payload=b"{}") for n in range(12)]
    with psycopg.connect(database_url) as tx:
        publisher.publish(tx, *events)
        tx.execute(
            "UPDATE outbox_messages SET status = 'DEAD', error_message = 'no' WHERE id = ANY (%s)",
            [[event.event_id for event in events[:5]]],
        )
    newest = [str(event.event_id) for event in reversed(events)]

    async def pages(**query: Any) -> list[str]:
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            answer = await api.get("/events", params={**query, **cursor, "limit": "2"})
            assert answer.status == 200, answer.body
            found += [item["id"] for item in answer.json["items"]]
            assert len(answer.json["items"]) <= 2
            if answer.json["next"] is None:
                return found
            cursor = {"cursor": answer.json["next"]}

    assert await pages() == newest
    assert await pages(topic="t1") == newest[::2]
    assert await pages(key="k0") == newest[2::3]
    assert await pages(status="DEAD") == newest[7:]
    assert await pages(error="no") == newest[7:]
    assert await pages(status="DEAD", error="yes") == []
    assert await pages(status="DEAD", topic="t0") == newest[7::2]
    assert await pages(status="SENT") == []
    assert await pages(**{"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"}) == []
    assert await pages(**{"from": "2020-01-01T00:00:00Z"}) == newest
    for wrong in ({"cursor": "x"}, {"colour": "1"}, {"status": "GONE"}, {"limit": "0"}):
        assert (await api.get("/events", params=wrong)).status in (400, 422)


async def test_what_is_rare_does_not_make_one_request_read_everything(
    publisher: Publisher, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allim.events.reading._SCAN_FIRST", 4)
    monkeypatch.setattr("allim.events.reading._SCAN_LIMIT", 8)
    rare = RawEvent(topic="rare", key=None, payload=b"")
    with psycopg.connect(database_url) as tx:
        publisher.publish(tx, rare, *(user_created() for _ in range(20)))
    reader = EventReader(database)
    cursor, found, requests = None, [], 0
    while True:
        page = await reader.events(EventFilter(topic="rare"), limit=3, cursor=cursor)
        requests += 1
        found += page.items
        cursor = page.next
        if cursor is None:
            break
    assert [event.id for event in found] == [rare.event_id]
    assert requests == 3


async def test_blocked_keys_are_listed_with_what_blocks_them(
    api: Api, publisher: Publisher, database_url: str
) -> None:
    heads = [RawEvent(topic="t", key=key, payload=b"") for key in ("b", "a", "z가")]
    with psycopg.connect(database_url) as tx:
        publisher.publish(tx, *heads)
        publisher.publish(tx, *(RawEvent(topic="t", key="a", payload=b"") for _ in range(3)))
        tx.execute("UPDATE outbox_messages SET parked = true")
        tx.execute(
            "UPDATE outbox_messages SET status = 'FAILED', retry_count = 2, error_message = 'no',"
            " next_retry_at = now() + interval '1 hour' WHERE id = ANY (%s)",
            [[heads[0].event_id, heads[1].event_id]],
        )
        tx.execute("UPDATE outbox_messages SET status = 'DEAD' WHERE id = %s", [heads[2].event_id])
    first = (await api.get("/events/blocked", params={"limit": "1"})).json
    assert [(i["key"], i["waiting"], i["event_id"]) for i in first["items"]] == [
        ("a", 3, str(heads[1].event_id))
    ]
    rest = (await api.get("/events/blocked", params={"cursor": first["next"]})).json
    assert [(i["key"], i["status"], i["waiting"]) for i in rest["items"]] == [
        ("b", EventStatus.FAILED, 0),
        ("z가", EventStatus.DEAD, 0),
    ]
    assert rest["next"] is None
    assert (await api.get("/events/blocked", params={"topic": "u"})).json["items"] == []
    assert (await api.get("/events/blocked", params={"cursor": "AAAA"})).status == 400


async def test_operators_replay_and_discard(
    api: Api, publisher: Publisher, database_url: str, outbox: Outbox
) -> None:
    dead, waiting = (RawEvent(topic="t", key=key, payload=b"{}") for key in ("a", "b"))
    with psycopg.connect(database_url) as tx:
        publisher.publish(tx, dead, waiting)
        tx.execute("UPDATE outbox_messages SET status = 'DEAD' WHERE id = %s", [dead.event_id])
    answer = await api.post(f"/events/{dead.event_id}/replay")
    assert (answer.status, answer.json["status"], answer.json["waiting"]) == (200, "PENDING", True)
    assert api.woken == [{LANE}]
    again = await api.post(f"/events/{waiting.event_id}/replay")
    assert (again.status, again.json["code"]) == (409, "not_replayable")
    answer = await api.post(f"/events/{dead.event_id}/discard")
    assert (answer.status, answer.json["status"]) == (200, "DISCARDED")
    again = await api.post(f"/events/{dead.event_id}/discard")
    assert (again.status, again.json["code"]) == (409, "not_discardable")
    for what in ("replay", "discard"):
        assert (await api.post(f"/events/{uuid4()}/{what}")).status == 404
