"""Creating notifications over HTTP."""

from __future__ import annotations

from allim.database.pool import Database
from tests.hub.conftest import Api


async def test_a_post_stores_the_notification_and_its_deliveries(
    api: Api, database: Database
) -> None:
    answer = await api.create()

    assert answer.status == 202
    created = answer.json
    assert answer.headers["Location"] == f"/notifications/{created['id']}"
    assert created["status"] == "PENDING"
    assert [(d["channel"], d["recipient"], d["status"]) for d in created["deliveries"]] == [
        ("EMAIL", "kim@example.com", "PENDING"),
        ("SLACK", None, "PENDING"),
    ]
    shown = (await api.get(answer.headers["Location"])).json
    assert shown["status"] == "PENDING"
    assert shown["created_at"] == created["created_at"]
    assert shown["data"] == {"order_id": "A-1024"}
    assert shown["title"] == "결제 실패"
    assert shown["priority"] == "normal"
    assert [d["id"] for d in shown["deliveries"]] == [d["id"] for d in created["deliveries"]]
    assert all(d["attempts"] == [] for d in shown["deliveries"])
    assert api.woken == [{"EMAIL", "SLACK"}]
