"""APPRISE with the real library, against a local server that its `json://` service calls."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels import apprise, apprise_library
from allim.channels.channel import Channel, ChannelServices, Draft
from allim.channels.registry import make_http, make_services
from allim.channels.threads import AbandonableThreads, NoThreadFree
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.testing.channels import ChannelConformance, ChannelRig, HttpRig, a_message, send_one
from allim.testing.http import Answer, Request

pytest.importorskip("apprise", reason="the extra apprise is not installed")

# Some of the library's hundred services load what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def json_url(url: str, path: str = "s3cretPATH") -> str:
    """The apprise URL whose service posts to a server."""
    return url.replace("http://", "json://user:s3cretWORD@") + f"/{path}"


class AppriseRig(HttpRig):
    recipient = "ops"
    bad_recipients = ("nobody", None, "json://127.0.0.1/s3cret")
    secrets = ("s3cretPATH", "s3cretWORD", "s3cretKEY")

    def settings(self, url: str) -> Mapping[str, str]:
        named = {"ops": json_url(url), "bad": "json://:::/s3cretPATH"}
        return {
            "APPRISE_URLS": json.dumps(named),
            "APPRISE_URL_NIGHT": json_url(url, "night?+X-Key=s3cretKEY"),
            "APPRISE_TIMEOUT_SECONDS": "20",
        }

    def make(self, environment: Environment, services: ChannelServices) -> Channel:
        return apprise.make(environment, services)

    def text_of(self, request: Request) -> str:
        return str(request.json["message"])


class TestConformance(ChannelConformance):
    def rig(self) -> AbstractAsyncContextManager[ChannelRig]:
        return AppriseRig.open(APPRISE_TIMEOUT_SECONDS="3")


async def test_a_message_goes_to_the_service_of_its_name() -> None:
    async with AppriseRig.open() as rig:
        outcome = await rig.send(title="제목", payload={"type": "failure"})
        await rig.send(recipient="night", title="only a title", message=None)
        ops, night = rig.sink.requests
    assert outcome == Outcome.delivered()
    assert ops.path == "/s3cretPATH"
    assert ops.json["title"] == "제목"
    assert (ops.json["message"], ops.json["type"]) == ("카드 승인이 거절되었습니다", "failure")
    assert night.path == "/night"
    assert night.headers["x-key"] == "s3cretKEY"
    assert (night.json["title"], night.json["message"]) == ("", "only a title")


async def test_no_is_tried_again_with_what_the_library_said() -> None:
    async with AppriseRig.open() as rig:
        outcome = await rig.send(Answer.of(500, "down"), recipient="night")
    assert (outcome.kind, outcome.code) == (OutcomeKind.RETRY, "apprise_failed")
    assert "500" in (outcome.detail or "")
    assert "s3cret" not in (outcome.detail or "")


async def test_nothing_is_sent_twice_where_it_must_not_be() -> None:
    async with AppriseRig.open(APPRISE_AT_MOST_ONCE="true") as rig:
        outcome = await rig.send(Answer.of(500))
    assert (outcome.kind, outcome.code) == (OutcomeKind.UNKNOWN, "apprise_failed")


async def test_what_is_no_service_is_refused_and_told_by_the_doctor() -> None:
    async with AppriseRig.open() as rig:
        outcome = await rig.send(recipient="bad")
        trouble = await rig.channel.diagnose()
        assert rig.sink.requests == []
    assert (outcome.kind, outcome.code) == (OutcomeKind.REFUSED, "invalid_apprise_url")
    assert (trouble or "").startswith("bad: ")
    assert "s3cret" not in f"{outcome.detail} {trouble}"


async def test_a_callers_url_is_refused_unless_the_operator_lets_it_in() -> None:
    draft = Draft("json://127.0.0.1:1/", "t", "m", None, {})
    async with AppriseRig.open() as rig:
        (problem,) = rig.channel.check(draft)
        refused = await rig.send(recipient=json_url(rig.sink.url))
        assert rig.sink.requests == []
    async with AppriseRig.open(APPRISE_ALLOW_URLS="true") as rig:
        assert rig.channel.check(draft) == []
        allowed = await rig.send(recipient=json_url(rig.sink.url))
        target = rig.channel.target(a_message(json_url(rig.sink.url)))
    assert (problem.place, problem.code) == ("/recipient", "url_not_allowed")
    assert (refused.kind, refused.code) == (OutcomeKind.REFUSED, "url_not_allowed")
    assert allowed.kind is OutcomeKind.DELIVERED
    assert target.startswith("apprise#")
    assert "s3cret" not in target


async def test_nobody_is_the_name_default() -> None:
    async with AppriseRig.open() as rig:
        default = json.dumps({"default": json_url(rig.sink.url, "first")})
        channel = apprise.make(Environment({"APPRISE_URLS": default}), make_services(rig.http))
        assert channel.check(Draft(None, "t", "m", None, {})) == []
        await send_one(channel, a_message(None))
        (request,) = rig.sink.requests
    assert request.path == "/first"


@pytest.mark.parametrize(
    ("payload", "place"),
    [({"type": "fatal"}, "/payload/type"), ({"format": ["html"]}, "/payload/format")],
)
async def test_what_the_library_does_not_know_is_named(payload: dict[str, Any], place: str) -> None:
    async with AppriseRig.open() as rig:
        (problem,) = rig.channel.check(Draft("ops", "t", "m", None, payload))
    assert problem.place == place


async def test_a_service_that_breaks_is_tried_again_and_tells_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from apprise.plugins.custom_json import NotifyJSON

    def broken(*_: object, **__: object) -> bool:
        raise RuntimeError("cannot reach s3cretPATH")

    monkeypatch.setattr(NotifyJSON, "url", broken)
    monkeypatch.setattr(NotifyJSON, "send", broken)
    async with AppriseRig.open() as rig:
        outcome = await rig.send()
    assert outcome.kind is OutcomeKind.RETRY
    assert "s3cret" not in (outcome.detail or "")


def test_nothing_of_the_library_reaches_our_log() -> None:
    heard: list[str] = []

    class Hear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    root, handler = logging.getLogger(), Hear()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        notified = apprise_library.notify(
            "json://user:s3cret@127.0.0.1:1/s3cret",
            apprise_library.Note("t", "s3cret body"),
            ends=time.monotonic() + 60,
        )
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
    assert not notified.ok
    assert notified.said
    assert not any("s3cret" in line for line in [*heard, notified.said])


async def test_a_call_that_hangs_is_left_behind_and_keeps_only_its_own_places() -> None:
    threads, hanging, free = AbandonableThreads(4, "test"), threading.Event(), threading.Event()

    def hang() -> str:
        hanging.set()
        free.wait()
        return "late"

    with pytest.raises(TimeoutError):
        await threads.run("a", hang, timeout=0.05)
    assert hanging.is_set()
    second = asyncio.create_task(threads.run("a", hang, timeout=60))
    while threads.running("a") < 2:
        await asyncio.sleep(0)
    with pytest.raises(NoThreadFree):
        await threads.run("a", hang, timeout=60)
    assert await threads.run("b", lambda: "well", timeout=60) == "well"
    free.set()
    assert await second == "late"
    while threads.running("a"):
        await asyncio.sleep(0)
    with pytest.raises(ZeroDivisionError):
        await threads.run("a", lambda: 1 // 0, timeout=60)
    with pytest.raises(RuntimeError, match="SystemExit"):
        await threads.run("a", sys.exit, timeout=60)


async def test_a_call_whose_time_is_over_begins_no_request() -> None:
    async with AppriseRig.open() as rig:
        notified = await asyncio.to_thread(
            apprise_library.notify,
            json_url(rig.sink.url),
            apprise_library.Note("t", "b"),
            ends=time.monotonic(),
        )
        assert rig.sink.requests == []
    assert not notified.ok


async def test_a_call_that_is_left_behind_gives_up_its_request_by_itself() -> None:
    async with AppriseRig.open(APPRISE_TIMEOUT_SECONDS="1") as rig:
        patient = json_url(rig.sink.url, "x?rto=86400&cto=86400")
        environment = Environment({"APPRISE_URL_OPS": patient, "APPRISE_TIMEOUT_SECONDS": "1"})
        channel = apprise.make(environment, make_services(rig.http))
        rig.sink.answer(Answer.hang())
        outcome = await send_one(channel, a_message("ops"))
        async with asyncio.timeout(60):
            while channel._threads.running("apprise:ops"):
                await asyncio.sleep(0.01)
    assert outcome.kind is OutcomeKind.RETRY


async def test_while_too_many_calls_hang_messages_wait_and_spend_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = threading.Event()
    monkeypatch.setattr(apprise_library, "notify", lambda *_, **__: free.wait())
    async with AppriseRig.open(APPRISE_CONCURRENCY="1", APPRISE_TIMEOUT_SECONDS="0.05") as rig:
        first, second = await rig.send(), await rig.send()
        free.set()
    assert (first.kind, first.code) == (OutcomeKind.RETRY, "timeout")
    assert (second.kind, second.code) == (OutcomeKind.SNOOZED, "target_busy")


async def test_without_a_url_success_says_that_nothing_was_called() -> None:
    environment = Environment({})
    channel = apprise.make(environment, make_services(make_http(environment)))
    assert channel.configured().mode == "not_configured"
    outcome = await send_one(channel, a_message("ops"))
    assert (outcome.kind, outcome.code) == (OutcomeKind.DELIVERED, "not_configured")


def test_the_library_is_not_loaded_before_it_is_needed() -> None:
    code = (
        "import sys\n"
        "from allim.base.settings import Environment\n"
        "from allim.channels import registry\n"
        "environment = Environment({'APPRISE_URL_OPS': 'json://127.0.0.1'})\n"
        "services = registry.make_services(registry.make_http(environment))\n"
        "registry.make_channels(environment, services)\n"
        "assert not {'apprise', 'pywebpush', 'requests'} & set(sys.modules), 'loaded'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_urls_without_the_library_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apprise_library, "is_installed", lambda: False)
    environment = Environment({"APPRISE_URL_OPS": "json://127.0.0.1"})
    with pytest.raises(ConfigurationError, match=r"allim\[apprise\]"):
        apprise.make(environment, make_services(make_http(environment)))
    empty = Environment({})
    apprise.make(empty, make_services(make_http(empty)))


@pytest.mark.parametrize(
    "settings",
    [
        {"APPRISE_URLS": "json://s3cret"},
        {"APPRISE_URLS": '["json://s3cret"]'},
        {"APPRISE_URLS": '{"ops": "s3cret"}'},
        {"APPRISE_URLS": '{"a/b": "json://s3cret"}'},
        {"APPRISE_URL_OPS": "s3cret"},
        {"APPRISE_URLS": '{"ops": "json://s3cret"}', "APPRISE_URL_OPS": "json://s3cret"},
    ],
)
def test_a_wrong_setting_is_named_but_not_shown(settings: dict[str, str]) -> None:
    environment = Environment(settings)
    with pytest.raises(ConfigurationError, match="APPRISE_URL") as caught:
        apprise.make(environment, make_services(make_http(environment)))
    assert "s3cret" not in str(caught.value)
