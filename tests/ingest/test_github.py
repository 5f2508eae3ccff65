"""GitHub's webhook: signed, told once, and in words."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from allim.database.pool import Database
from allim.ingest.github_events import Ignored, event_of
from allim.ingest.github_routes import signature_of
from tests.hub.conftest import Answer, Api, Start, count
from tests.ingest.conftest import TakeRoutes, change, recipients, route, told
from tests.ingest.payloads import ISSUE, PULL_REQUEST, PUSH, RELEASE, WORKFLOW_RUN, github

SECRET = "It's a Secret to Everybody"
PATH = "/ingest/github"


async def deliver(
    api: Api, event: str, payload: Any, form: bool = False, /, **headers: str
) -> Answer:
    """Call as GitHub does."""
    body = json.dumps(payload).encode()
    if form:
        body = urlencode({"payload": body.decode()}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.post(
        PATH,
        data=body,
        headers={
            "Content-Type": "application/x-www-form-urlencoded" if form else "application/json",
            "User-Agent": "GitHub-Hookshot/044aadd",
            "X-GitHub-Event": event,
            "X-GitHub-Delivery": str(uuid4()),
            "X-Hub-Signature-256": signature_of(SECRET, body),
            **named,
        },
    )


def test_the_signature_is_github_s() -> None:
    # The example of GitHub's own documentation.
    assert signature_of(SECRET, b"Hello, World!") == (
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    )


WORDS: list[tuple[str, Any, str, list[str]]] = [
    (
        "push",
        PUSH,
        "[acme/shop] main pushed by kim: 12 commits",
        ["0bcdef0 결제 고침 0 (kim)", "+ 2 more", PUSH["compare"]],
    ),
    (
        "push",
        PUSH | {"ref": "refs/tags/v1", "created": True, "commits": []},
        "[acme/shop] tag v1 created by kim",
        [PUSH["compare"]],
    ),
    (
        "push",
        PUSH | {"deleted": True, "commits": []},
        "[acme/shop] main deleted by kim",
        [PUSH["compare"]],
    ),
    (
        "pull_request",
        PULL_REQUEST,
        "[acme/shop] pull request #42 merged by kim: 결제 재시도",
        ["retry -> main", "https://github.com/acme/shop/pull/42"],
    ),
    (
        "issues",
        ISSUE,
        "[acme/shop] issue #7 opened by kim: Checkout is slow",
        ["It takes 9 s.", "https://github.com/acme/shop/issues/7"],
    ),
    (
        "workflow_run",
        WORKFLOW_RUN,
        "[acme/shop] CI #118 on main: failure",
        [
            "c0ffee0 Retry payments",
            "attempt 2",
            "https://github.com/acme/shop/actions/runs/99",
        ],
    ),
    (
        "release",
        RELEASE,
        "[acme/shop] release v1.2.0: Autumn",
        ["Faster.", "https://github.com/acme/shop/releases/tag/v1.2.0"],
    ),
]


@pytest.mark.parametrize(("event", "payload", "title", "lines"), WORDS)
def test_an_event_in_words(event: str, payload: Any, title: str, lines: list[str]) -> None:
    report = event_of(event, payload).report
    assert report.title == title
    said = report.message.split("\n")
    assert said == lines if len(said) == len(lines) else set(lines) <= set(said)


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("star", github(action="created")),
        ("pull_request", PULL_REQUEST | {"action": "synchronize"}),
        ("issues", ISSUE | {"action": "labeled"}),
        ("release", RELEASE | {"action": "edited"}),
        ("workflow_run", WORKFLOW_RUN | {"action": "requested"}),
        ("workflow_run", github(action="completed", workflow_run={"conclusion": "success"})),
        ("push", PUSH | {"commits": []}),
        ("push", {}),
    ],
)
def test_what_nobody_needs_is_not_told(event: str, payload: Any) -> None:
    with pytest.raises(Ignored):
        event_of(event, payload)


@pytest.mark.parametrize("event", ["push", "pull_request", "issues", "release", "workflow_run"])
@pytest.mark.parametrize("odd", [None, 1, "x", [], [1], {}, {"id": []}])
def test_no_shape_of_a_payload_is_an_error(event: str, odd: Any) -> None:
    names = ("ref", "commits", "pull_request", "issue", "release", "workflow_run", "repository")
    actions: list[Any] = ["opened", "published", "completed", odd]
    for action in actions:
        try:
            told = event_of(event, {"action": action, "created": True, **dict.fromkeys(names, odd)})
        except Ignored:
            continue
        assert told.report.title


async def test_an_event_is_told_once_and_goes_by_its_labels(
    with_routes: TakeRoutes, database: Database
) -> None:
    api = await with_routes(
        route("alerts", sources=["alertmanager", "grafana"]),
        route("broken", "event=workflow_run", "branch=main"),
        route("rest"),
        INGEST_GITHUB_SECRET=SECRET,
        ALLIM_API_KEYS="reader:a-very-long-secret-2:read",
    )
    first = await deliver(api, "workflow_run", WORKFLOW_RUN, X_GitHub_Delivery="d-1")
    again = await deliver(api, "workflow_run", WORKFLOW_RUN, X_GitHub_Delivery="d-1")
    # The delivery's id is not signed, so it does not make it another one.
    replayed = await deliver(api, "workflow_run", WORKFLOW_RUN, X_GitHub_Delivery="d-2")
    form = await deliver(api, "issues", ISSUE, True)
    ignored = await deliver(api, "star", github(action="created"))

    assert [each.status for each in (first, again, form, ignored)] == [202] * 4
    assert first.json["notifications"] == again.json["notifications"] != []
    assert replayed.json == first.json
    assert ignored.json == {"notifications": [], "ignored": "star is not told"}
    found = await told(api, Authorization="Bearer a-very-long-secret-2")
    assert [(each["type"], recipients(each)) for each in found] == [
        ("GITHUB_WORKFLOW_RUN", ["broken"]),
        ("GITHUB_ISSUES", ["rest"]),
    ]
    assert found[0]["data"] == {
        "event": "workflow_run",
        "action": "completed",
        "repository": "acme/shop",
        "sender": "kim",
        "branch": "main",
        "workflow": "CI",
        "conclusion": "failure",
        "url": "https://github.com/acme/shop/actions/runs/99",
    }
    assert len(api.woken) == 2

    await change(database, "UPDATE notification SET request_hash = '\\x00'")
    later = await deliver(api, "workflow_run", WORKFLOW_RUN, X_GitHub_Delivery="d-1")
    assert later.json == {"notifications": [], "ignored": "this delivery was told before"}
    assert await count(database, "notification") == 2


async def test_only_who_knows_the_secret_is_heard(
    with_routes: TakeRoutes, start_api: Start, database: Database
) -> None:
    api = await with_routes(route("all"), INGEST_GITHUB_SECRET=SECRET)
    wrong = "sha256=" + "0" * 64
    for headers, code in (
        ({"X_Hub_Signature_256": wrong}, "wrong_signature"),
        ({"X_Hub_Signature_256": "sha256="}, "wrong_signature"),
        ({"X_Hub_Signature_256": signature_of("another", json.dumps(PUSH).encode())}, None),
        ({"X_Hub_Signature_256": ""}, "unsigned"),
    ):
        answer = await deliver(api, "push", PUSH, **headers)
        assert (answer.status, answer.json["code"]) == (401, code or "wrong_signature")
    assert (await deliver(api, "push", PUSH, X_GitHub_Delivery="")).status == 422
    assert (await deliver(api, "push", [])).status == 422
    assert (await deliver(api, "ping", {"zen": "Keep it logically awesome."})).json == {
        "notifications": [],
        "ignored": "ping: the signature is right",
    }
    assert await count(database, "notification") == 0

    deaf = await start_api()
    answer = await deliver(deaf, "push", PUSH)
    assert (answer.status, answer.json["code"]) == (403, "webhook_not_set_up")
