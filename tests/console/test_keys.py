"""The pages of keys and of the audit log."""

from __future__ import annotations

import re
from typing import Any

from allim.database.pool import Database
from allim.web.access import AccessScope
from allim.web.keys import create_key, list_keys
from tests.console.conftest import ADMIN, Visitor, on_record

XSS = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


async def test_a_key_is_created_shown_once_and_works(guarded: Visitor, database: Database) -> None:
    await guarded.log_in(ADMIN)

    made = await guarded.post("/keys", name="shop", scope=["send", "read"], tenant_id="7")

    [token] = re.findall(r"allim_[\w-]{43}", made.text)
    [key] = await list_keys(database)
    assert (key.name, key.scopes, key.tenant_id) == (
        "shop",
        [AccessScope.SEND, AccessScope.READ],
        7,
    )
    assert token not in (await guarded.get("/keys")).text
    async with guarded.session.get(
        guarded.url + "/notifications", headers={"Authorization": f"Bearer {token}"}
    ) as answer:
        assert answer.status == 200
    [entry] = await on_record(database)
    assert (entry.actor, entry.action, entry.subject) == ("boss", "key.create", f"key {key.id}")
    assert token not in str(entry)


async def test_what_is_wrong_with_a_key_is_said_and_what_was_typed_stays(
    visitor: Visitor, database: Database
) -> None:
    await visitor.get("/keys")

    wrong: list[dict[str, Any]] = [
        {"name": XSS},
        {"name": "k", "scope": "all"},
        {"name": "k", "tenant_id": "x"},
    ]
    for fields in wrong:
        answer = await visitor.post("/keys", **fields)
        assert answer.status == 422
        assert 'role="alert"' in answer.text
        assert "<img" not in answer.text
    assert await list_keys(database) == []


async def test_the_first_key_closes_the_console_and_says_so(visitor: Visitor) -> None:
    await visitor.get("/keys")
    made = await visitor.post("/keys", name="first", scope="admin")
    assert "From now on" in made.words

    assert (await visitor.get("/keys", follow=False)).status == 303
    [token] = re.findall(r"allim_[\w-]{43}", made.text)
    assert (await visitor.log_in(token)).status == 200


async def test_a_key_is_revoked_once(guarded: Visitor, database: Database) -> None:
    await create_key(database, "old", [AccessScope.READ])
    [key] = await list_keys(database)
    await guarded.log_in(ADMIN)

    first = await guarded.post(f"/keys/{key.id}/revoke")
    again = await guarded.post(f"/keys/{key.id}/revoke")

    assert f"Key {key.id} is revoked." in first.words
    assert f"There is no valid key {key.id}." in again.words
    assert "is revoked." not in (await guarded.get("/keys")).words, "shown once"
    assert [e.action for e in await on_record(database)] == ["key.revoke"]
