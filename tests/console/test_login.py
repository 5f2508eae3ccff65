"""Who gets in, and how far."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from allim.console.failed_logins import ROWS, FailedLogins
from allim.console.failed_logins import SECONDS as WINDOW
from allim.console.login_limit import FAILURES, SECONDS, LoginLimit
from allim.console.sessions import NOBODY, NoEntry
from allim.database.pool import Database
from allim.hub.audit import AuditLog
from allim.web.access import AccessScope
from allim.web.keys import create_key, list_keys, revoke_key
from tests.console.conftest import ADMIN, OPERATE, READ, SEND, TENANT, Open, Visitor

PAGES = (
    "/",
    "/notifications",
    "/dead-letters",
    "/events",
    "/enrolment",
    "/tenants",
    "/channels",
    "/keys",
    "/audit",
)


@pytest.mark.parametrize("path", [*PAGES, "/nowhere"])
async def test_every_page_leads_to_the_login_and_back(guarded: Visitor, path: str) -> None:
    answer = await guarded.get(path, follow=False)

    assert answer.status == 303
    assert answer.headers["Location"].startswith("/console/login")
    assert "csrf" not in answer.text


async def test_a_login_leads_to_the_page_that_was_asked_for(guarded: Visitor) -> None:
    await guarded.get("/audit?actor=kim")
    entered = await guarded.post("/login", key=READ, next="/audit?actor=kim", follow=False)

    assert (entered.status, entered.headers["Location"]) == (303, "/console/audit?actor=kim")
    assert (await guarded.get("/audit?actor=kim")).status == 200


async def test_a_login_leads_nowhere_else(guarded: Visitor) -> None:
    for target in ("https://evil.example", "//evil.example", "\\evil", "/\r\nX: y"):
        await guarded.get("/login")
        entered = await guarded.post("/login", key=READ, next=target, follow=False)
        assert entered.headers["Location"].startswith("/console/")
        guarded.session.cookie_jar.clear()


async def test_the_session_is_a_cookie_that_no_script_reads_and_no_other_site_sends(
    guarded: Visitor, database: Database
) -> None:
    await guarded.get("/login")
    entered = await guarded.post("/login", key=ADMIN, follow=False)

    cookie = entered.headers["Set-Cookie"]
    assert cookie.startswith("allim_session=")
    assert all(word in cookie for word in ("HttpOnly", "SameSite=lax", "Path=/console"))
    assert "Secure" not in cookie
    token = cookie.partition("=")[2].partition(";")[0]
    [(stored,)] = await database.fetch("SELECT s::text FROM console_session s")
    assert token not in stored
    assert ADMIN not in stored


async def test_behind_tls_the_cookie_is_secure(guarded: Visitor) -> None:
    await guarded.get("/login")
    entered = await guarded._call(
        "POST",
        "/login",
        data={"csrf": guarded.csrf, "key": READ},
        headers={"X-Forwarded-Proto": "https"},
        allow_redirects=False,
    )

    assert "Secure" in entered.headers["Set-Cookie"]


@pytest.mark.parametrize(
    ("key", "status", "says"),
    [
        ("wrong", 401, "not known"),
        ("", 401, "not known"),
        (SEND, 403, "scope read"),
        (TENANT, 403, "one tenant"),
    ],
)
async def test_a_key_that_may_not_see_the_console_is_told_why(
    guarded: Visitor, key: str, status: int, says: str
) -> None:
    answer = await guarded.log_in(key)

    assert (answer.status, says in answer.words) == (status, True)
    assert (await guarded.get("/keys", follow=False)).status == 303


async def test_guessing_is_bounded(guarded: Visitor) -> None:
    for _ in range(FAILURES):
        assert (await guarded.log_in("wrong")).status == 401

    refused = await guarded.log_in(ADMIN)

    assert (refused.status, refused.headers["Retry-After"]) == (429, "300")


def test_the_bound_on_guessing_ends() -> None:
    now = 0.0
    limit = LoginLimit(lambda: now)
    for _ in range(FAILURES):
        limit.failed("a")
    assert (limit.refuses("a"), limit.refuses("b")) == (True, False)

    now = SECONDS
    assert not limit.refuses("a")
    limit.failed("a")
    assert not limit.refuses("a")


async def logins(database: Database) -> list[tuple[str, str, Any]]:
    """Every login on record, the first first: who, how it ended, and the rest."""
    entries = (await AuditLog(database).list(limit=500))[0]
    assert {(e.action, e.subject) for e in entries} <= {("console.login", "console")}
    return [(e.actor, e.outcome.value, dict(e.detail)) for e in reversed(entries)]


async def test_every_login_is_on_record_with_its_address_and_without_the_key(
    guarded: Visitor, database: Database
) -> None:
    for key in ("wrong-secret-0123456789", SEND, TENANT, OPERATE):
        await guarded.log_in(key)

    here = {"from": "127.0.0.1"}
    assert await logins(database) == [
        ("?", "refused", {**here, "code": "unknown_key", "tries": 1}),
        ("sender", "refused", {**here, "code": "missing_scope", "tries": 1}),
        ("shop", "refused", {**here, "code": "tenant_key", "tries": 1}),
        ("ops", "done", here),
    ]
    rows = str(await database.fetch("SELECT a::text FROM audit_log a"))
    assert "secret" not in rows
    shown = await guarded.get("/audit?action=console.login")
    assert "shop" in shown.words


async def test_guesses_are_counted_and_flood_nothing(database: Database) -> None:
    now = 0.0
    failed = FailedLogins(AuditLog(database), lambda: now)
    unknown = NoEntry("unknown_key", NOBODY)

    for _ in range(9):
        await failed.note(unknown, "10.0.0.0")
    assert await logins(database) == [
        ("?", "refused", {"from": "10.0.0.0", "code": "unknown_key", "tries": 9})
    ]
    for _ in range(1000):
        await failed.note(unknown, "10.0.0.0")
    for host in range(1, 200):
        await failed.note(NoEntry("tenant_key", "shop", 5), f"10.0.0.{host}")
    told = [(e["from"], e["tries"]) for _, _, e in await logins(database)]
    assert told == [
        ("10.0.0.0", 512),
        *((f"10.0.0.{host}", 1) for host in range(1, ROWS)),
        ("elsewhere", 128),
    ]

    now = WINDOW
    await failed.note(unknown, "10.0.0.0")
    assert (await logins(database))[-1][2] == {
        "from": "10.0.0.0",
        "code": "unknown_key",
        "tries": 1,
    }
    assert len(await logins(database)) == ROWS + 2


async def test_tries_at_once_share_a_row(database: Database) -> None:
    failed = FailedLogins(AuditLog(database))
    await asyncio.gather(
        *(failed.note(NoEntry("unknown_key", NOBODY), "10.0.0.1") for _ in range(64))
    )
    [(_, _, detail)] = await logins(database)
    assert detail["tries"] == 64


async def test_behind_a_trusted_proxy_each_client_waits_for_itself(
    open_console: Open, database: Database
) -> None:
    visitor = await open_console(
        ALLIM_API_KEYS=f"boss:{ADMIN}:admin", ALLIM_TRUSTED_PROXIES="127.0.0.0/8, 10.0.7.0/24"
    )
    for guess in range(FAILURES):
        forged = f"198.51.100.{guess}, 203.0.113.5, 10.0.7.1"
        assert (await visitor.log_in("wrong", X_Forwarded_For=forged)).status == 401

    refused = await visitor.log_in(ADMIN, X_Forwarded_For="203.0.113.6, 203.0.113.5")
    entered = await visitor.log_in(ADMIN, X_Forwarded_For="203.0.113.5, 203.0.113.6")

    assert (refused.status, entered.status) == (429, 200)
    told = [(who, e["from"], e.get("tries")) for who, _, e in await logins(database)]
    assert told == [("?", "203.0.113.5", FAILURES), ("boss", "203.0.113.6", None)]


async def test_without_trusted_proxies_nobody_is_believed(
    guarded: Visitor, database: Database
) -> None:
    for guess in range(FAILURES):
        await guarded.log_in("wrong", X_Forwarded_For=f"203.0.113.{guess}")

    assert (await guarded.log_in(ADMIN, X_Forwarded_For="203.0.113.99")).status == 429
    assert {e["from"] for _, _, e in await logins(database)} == {"127.0.0.1"}


async def test_a_session_ends_with_its_key(guarded: Visitor, database: Database) -> None:
    token = await create_key(database, "brief", [AccessScope.READ])
    await guarded.log_in(token)
    assert (await guarded.get("/keys", follow=False)).status == 200

    await revoke_key(database, (await list_keys(database))[0].id)

    assert (await guarded.get("/keys", follow=False)).status == 303


async def test_a_session_ends_by_itself_and_by_logging_out(
    guarded: Visitor, database: Database
) -> None:
    await guarded.log_in(READ)
    await database.fetch("UPDATE console_session SET expires_at = now() RETURNING expires_at")
    assert (await guarded.get("/keys", follow=False)).status == 303

    await guarded.log_in(READ)
    assert (await guarded.get("/keys", follow=False)).status == 200
    await guarded.post("/logout")
    assert (await guarded.get("/keys", follow=False)).status == 303
    assert await database.fetch("SELECT FROM console_session") == []


async def test_a_session_holds_on_another_process(open_console: Open) -> None:
    keys = f"boss:{ADMIN}:admin"
    one, other = [await open_console(ALLIM_API_KEYS=keys) for _ in range(2)]
    await one.log_in(ADMIN)
    cookies = {c.key: c.value for c in one.session.cookie_jar}

    assert (await other.get("/keys", follow=False, cookies=cookies)).status == 200


async def test_a_forged_cookie_is_nobody(guarded: Visitor) -> None:
    answer = await guarded.get("/keys", follow=False, cookies={"allim_session": "forged"})

    assert answer.status == 303


async def test_a_form_without_its_token_does_nothing(guarded: Visitor, database: Database) -> None:
    await guarded.log_in(ADMIN)

    for csrf in ("", "0" * 64, "é"):
        answer = await guarded.post("/keys", csrf=csrf, name="k", scope="read")
        assert (answer.status, "out of date" in answer.words) == (403, True)
    assert await list_keys(database) == []


async def test_a_form_of_another_site_does_nothing(visitor: Visitor, database: Database) -> None:
    await visitor.get("/keys")
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = await visitor._call(
            "POST",
            "/keys",
            data={"csrf": visitor.csrf, "name": "k", "scope": "read"},
            headers=headers,
        )
        assert answer.status == 403
    assert await list_keys(database) == []


async def test_without_keys_the_console_is_open_on_this_machine_to_known_hosts_only(
    visitor: Visitor,
) -> None:
    assert (await visitor.get("/")).status == 200
    assert "local" in (await visitor.get("/keys")).words
    assert (await visitor.get("/", headers={"Host": "evil.example"})).status == 400


async def test_who_may_only_read_can_only_read(guarded: Visitor, database: Database) -> None:
    for key in (READ, OPERATE):
        page = await guarded.log_in(key)
        assert "Create the key" not in page.words
        answer = await guarded.post("/keys", name="k", scope="read")
        assert (answer.status, "'admin'" in answer.words) == (403, True)
        await guarded.post("/logout")
    assert await list_keys(database) == []


async def test_an_api_key_in_a_header_does_not_open_the_console(guarded: Visitor) -> None:
    answer = await guarded.get("/keys", follow=False, headers={"Authorization": f"Bearer {ADMIN}"})

    assert answer.status == 303


async def test_a_cookie_does_not_open_the_api(guarded: Visitor) -> None:
    await guarded.log_in(ADMIN)
    async with guarded.session.get(guarded.url + "/notifications") as answer:
        assert answer.status == 401
    assert isinstance(guarded.session, aiohttp.ClientSession)
