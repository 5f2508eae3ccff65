"""One delivery for each of many recipients."""

from __future__ import annotations

from typing import Any

import pytest

from allim.database.pool import Database
from tests.hub.conftest import NOTIFICATION, Api, count

MANY = [f"kim{at}@example.com" for at in range(300)]


def to(*deliveries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**NOTIFICATION, "deliveries": list(deliveries), **more}


async def test_a_list_becomes_one_delivery_each_in_its_order(api: Api, database: Database) -> None:
    then = {"channel": "LOG"}
    fallback = {"channel": "SMS", "recipient": "01012345678"}
    answer = await api.create(
        to(
            {"channel": "LOG"},
            {"channel": "EMAIL", "recipients": MANY, "title": "own", "payload": {"html": "<p>x"}},
            {"channel": "EMAIL", "recipients": MANY[:2], "then": [then], "fallback": [fallback]},
        )
    )
    assert answer.status == 202
    made = answer.json["deliveries"]
    assert [d["recipient"] for d in made] == [None, *MANY, *MANY[:2]]
    assert [d["id"] for d in made] == sorted(d["id"] for d in made)
    rows = await database.fetch(
        "SELECT count(*), count(DISTINCT payload::text), min(payload ->> 'title'),"
        " count(then_steps) FROM delivery WHERE channel = 'EMAIL'"
    )
    assert rows[0] == (302, 2, "own", 2)
    steps = await database.fetch(
        "SELECT recipient, then_steps, fallback_steps FROM delivery"
        " WHERE then_steps IS NOT NULL ORDER BY id"
    )
    # Each has steps of its own, which inherit its own recipient.
    assert [row[0] for row in steps] == MANY[:2]
    assert [row[1][0].get("recipient") for row in steps] == MANY[:2]
    assert [row[2][0]["recipient"] for row in steps] == ["01012345678"] * 2


async def test_a_repeat_finds_all_of_them(api: Api, database: Database) -> None:
    body = to({"channel": "EMAIL", "recipients": MANY})
    first = await api.create(body, Idempotency_Key="k")
    again = await api.create(body, Idempotency_Key="k")
    other = await api.create(to({"channel": "EMAIL", "recipients": MANY[1:]}), Idempotency_Key="k")

    assert first.json == again.json
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (other.status, other.json["code"]) == (422, "idempotency_mismatch")
    assert await count(database, "delivery") == 300


@pytest.mark.parametrize(
    ("delivery", "places"),
    [
        ({"recipients": ["a@b.kr", "x", "c@d.kr", "y"]}, ["recipients/1", "recipients/3"]),
        ({"recipients": ["x", "a@b.kr"]}, ["recipients/0"]),
        ({"recipients": ["a@b.kr", "c@d.kr", "a@b.kr"]}, ["recipients/2"]),
        ({"recipients": ["a@b.kr"], "recipient": "c@d.kr"}, ["recipients"]),
        ({"recipients": ["a@b.kr"], "row_key": "r"}, ["row_key"]),
        (
            {"recipients": ["a@b.kr"], "then": [{"channel": "LOG", "row_key": "r"}]},
            ["then/0/row_key"],
        ),
        ({"recipients": []}, ["recipients"]),
        ({"recipients": ["a@b.kr", 7]}, ["recipients/1"]),
        ({"recipients": ["a@b.kr", "b\0@b.kr"]}, ["recipients/1"]),
        ({"recipients": ["a@b.kr", "c@d.kr"], "payload": {"html": 7}}, ["payload/html"]),
        ({"recipients": MANY, "payload": {"html": "x" * 60_000}}, ["recipients"]),
        (
            {"recipient": "a@b.kr", "then": [{"channel": "EMAIL", "recipients": ["a@b.kr"]}]},
            ["then/0/recipients"],
        ),
    ],
)
async def test_what_is_wrong_with_a_list_is_told_by_its_place(
    api: Api, database: Database, delivery: dict[str, Any], places: list[str]
) -> None:
    answer = await api.create(to({"channel": "EMAIL", **delivery}))
    assert answer.status == 422
    found = [problem["place"] for problem in answer.json["errors"]]
    assert found == [f"/deliveries/0/{place}" for place in places]
    assert await count(database, "delivery") == 0


async def test_a_row_key_that_repeats_is_told_where_it_was_written(api: Api) -> None:
    keyed = {"channel": "EMAIL", "recipient": "a@b.kr", "row_key": "r"}
    answer = await api.create(to({"channel": "EMAIL", "recipients": MANY}, keyed, keyed))
    assert [problem["place"] for problem in answer.json["errors"]] == ["/deliveries/2/row_key"]
    assert "/deliveries/1" in answer.json["errors"][0]["message"]


async def test_lists_together_are_written_out_up_to_a_limit(api: Api) -> None:
    each = {"channel": "EMAIL", "recipients": MANY[:80], "payload": {"html": "x" * 50_000}}
    answer = await api.create(to(*[each] * 4, each))
    assert [problem["place"] for problem in answer.json["errors"]] == ["/deliveries/4/recipients"]


async def test_too_many_are_refused_before_any_is_looked_at(api: Api) -> None:
    wrong = {"channel": "NOBODY", "recipients": MANY}
    answer = await api.create(to(*[wrong] * 4))
    assert [problem["code"] for problem in answer.json["errors"]] == ["too_many_deliveries"]


async def test_no_more_than_a_thousand_in_all(api: Api, database: Database) -> None:
    lists = [[f"kim{at}.{part}@example.com" for at in range(400)] for part in range(3)]
    answer = await api.create(to(*({"channel": "EMAIL", "recipients": each} for each in lists)))
    assert (answer.status, answer.json["errors"][0]["code"]) == (422, "too_many_deliveries")
    assert await count(database, "delivery") == 0
