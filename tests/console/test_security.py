"""What an attacker tries: a key too small, none, another page, hostile words."""

from __future__ import annotations

import asyncio
import base64
import re
from unittest.mock import MagicMock
from uuid import UUID

import pytest

from allim.channels.channel import RecipientKind
from allim.console.languages import LANGUAGES, Catalogue
from allim.console.login_limit import FAILURES
from allim.console.pages import pages_of
from allim.database.pool import Database
from allim.hub.redaction import shown
from tests.console.conftest import ADMIN, READ, Open, Visitor, on_record
from tests.console.dead import delivery, notification

NO_ONE = UUID(int=1)
# Only the list of routes is wanted of them: no handler runs.
POSTS = [
    (action.path, action.scope)
    for page in pages_of(MagicMock())
    for action in page.actions
    if action.method == "POST"
]
TOKENS = "T000/B000/SECRETPATH"


def filled(path: str) -> str:
    """A path with something in the place of its parameters."""
    path = path.replace("{id:uuid}", str(NO_ONE)).replace("{id:int}", "1")
    return path.replace("{name}", "LOG").replace("{move:str}", "cancel")


async def actions(database: Database) -> int:
    """How much is on record."""
    return len(await on_record(database))


def test_every_action_is_known() -> None:
    assert len(POSTS) >= 20
    assert "{" not in "".join(filled(path) for path, _ in POSTS)
    assert {scope.value for _, scope in POSTS} == {"operate", "admin"}


async def test_no_action_is_done_without_a_key_or_with_one_that_only_reads(
    guarded: Visitor, database: Database
) -> None:
    await guarded.get("/login")
    for path, _ in POSTS:
        answer = await guarded.post(filled(path), follow=False)
        assert (answer.status, answer.headers.get("Location")) == (303, "/console/login"), path
    await guarded.log_in(READ)
    for path, _ in POSTS:
        answer = await guarded.post(filled(path), follow=False, reason="x")
        assert (answer.status, "does not have the scope" in answer.words) == (403, True), path
    assert await actions(database) == 0


async def test_no_action_is_done_for_another_page(guarded: Visitor, database: Database) -> None:
    await guarded.log_in(ADMIN)
    for path in [*(filled(path) for path, _ in POSTS), "/logout", "/language", "/login"]:
        for csrf in ("", "0" * 64):
            answer = await guarded.post(path, csrf=csrf, follow=False)
            assert (answer.status, "out of date" in answer.words) == (403, True), path
        for header in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "same-site"},
        ):
            form = {"csrf": guarded.csrf, "reason": "x"}
            answer = await guarded._call("POST", path, data=form, headers=header)
            assert answer.status == 403, (path, header)
    assert await actions(database) == 0


async def test_guesses_sent_at_once_are_bounded_too(guarded: Visitor) -> None:
    await guarded.get("/login")

    answers = await asyncio.gather(
        *(guarded.post("/login", key=f"guess-{n}") for n in range(3 * FAILURES))
    )

    assert sum(answer.status == 401 for answer in answers) <= FAILURES


async def test_a_login_never_takes_over_a_cookie_that_was_there(guarded: Visitor) -> None:
    planted = {"allim_session": "planted"}
    await guarded.get("/login", cookies=planted)
    guarded.session.cookie_jar.update_cookies(planted)
    await guarded.get("/login")
    entered = await guarded.post("/login", key=READ, follow=False)

    assert entered.status == 303
    assert "allim_session=planted" not in entered.headers["Set-Cookie"]
    guarded.session.cookie_jar.clear()
    assert (await guarded.get("/keys", cookies=planted, follow=False)).status == 303


async def test_a_session_that_ends_under_a_poll_leads_back_to_the_page(open_console: Open) -> None:
    console = await open_console(ALLIM_API_KEYS=f"boss:{ADMIN}:admin", ALLIM_ROOT_PATH="/hub")
    for seen, then in (
        ("https://ops.example/hub/console/events?topic=a", "%2Fevents%3Ftopic%3Da"),
        ("https://[", "%2F"),
        ("javascript:alert(1)", "%2F"),
    ):
        headers = {"HX-Request": "true", "HX-Target": "standing", "HX-Current-URL": seen}
        answer = await console.get("/events", headers=headers, follow=False)
        redirect = answer.headers["HX-Redirect"]
        assert (answer.status, redirect) == (401, f"/hub/console/login?next={then}")


@pytest.mark.parametrize(
    "flash",
    [
        b"[" * 3000,
        b'["good", "<script>alert(1)</script>"]',
        b'["\\"><script>", "x"]',
        b'{"a": 1}',
    ],
)
async def test_a_forged_message_cookie_is_text_at_most(visitor: Visitor, flash: bytes) -> None:
    cookie = base64.urlsafe_b64encode(flash).decode()

    page = await visitor.get("/keys", headers={"Cookie": f"allim_flash={cookie}"})

    assert page.status == 200
    assert "<script>alert" not in page.text


@pytest.mark.parametrize("path", ["/tenants/", "/enrolment/runs/", "/dead-letters/replays/"])
async def test_a_number_beyond_all_numbers_is_not_found(visitor: Visitor, path: str) -> None:
    assert (await visitor.get(path + "9" * 5000)).status == 404
    assert (await visitor.get(path + "9" * 30)).status == 404


async def test_no_page_shows_the_address_of_a_webhook(visitor: Visitor, database: Database) -> None:
    url = f"https://hooks.slack.com/services/{TOKENS}?token=SECRETQUERY"
    await database.fetch(
        "INSERT INTO endpoint (channel, url, disabled_at, disabled_reason)"
        " VALUES ('WEBHOOK', %(url)s, now(), 'http_410') RETURNING id",
        {"url": url},
    )
    one = await notification(database)
    await delivery(database, one, channel="SLACK", recipient=url, error_code="http_500")

    for path in (
        "/channels",
        "/notifications",
        f"/notifications/{one}",
        "/dead-letters",
        "/dead-letters/group?status=DEAD&channel=SLACK&error_code=http_500",
    ):
        page = await visitor.get(path)
        assert page.status == 200
        assert re.search("SECRETPATH|SECRETQUERY|T000", page.text) is None, path
        assert path == "/dead-letters" or "https://hooks.slack.com/… #" in page.words, path


@pytest.mark.parametrize(
    ("recipient", "seen"),
    [
        (None, ""),
        ("kim@example.com", "kim@example.com"),
        ("+82 10-1234-5678", "+82 10-1234-5678"),
        ("https://crm.example:8443/", "https://crm.example:8443"),
        ("https://user:pass@crm.example/a?b#c", "https://crm.example/… #"),
        ("tgram://123:token/456", "tgram://… #"),
        ("ops, slack://T/B/x", "ops, slack://… #"),
        ('{"endpoint": "https://push.example/x", "keys": {"auth": "k"}}', "https://push.example #"),
    ],
)
def test_of_an_address_only_the_host_is_shown(recipient: str | None, seen: str) -> None:
    told = shown(recipient)
    assert told[:-8] == seen if seen.endswith("#") else told == seen


def test_every_kind_of_recipient_has_its_words() -> None:
    for language in LANGUAGES:
        words = Catalogue(language)
        assert [kind for kind in RecipientKind if f"channels.recipients.{kind}" not in words] == []
