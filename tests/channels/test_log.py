"""LOG: the conformance suite, and its one line a delivery."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from allim.base.settings import Environment
from allim.channels import log
from allim.channels.registry import make_http, make_services
from allim.relay.outcomes import OutcomeKind
from allim.testing.channels import (
    ChannelConformance,
    ChannelRig,
    Mood,
    a_message,
    a_work,
    record_nothing,
    send_one,
)


class LogRig(ChannelRig):
    moods = frozenset({Mood.WELL})

    def __init__(self) -> None:
        self.lines: list[str] = []
        environment = Environment({})
        services = make_services(make_http(environment), print_line=self._print)
        self.channel = log.make(environment, services)

    def _print(self, text: str) -> None:
        self.lines.extend(text.split("\n"))

    async def turn(self, mood: Mood) -> None:
        return

    async def received(self) -> Sequence[str]:
        return [json.loads(line)["message"] or "" for line in self.lines]

    async def all_closed(self) -> None:
        return


class TestConformance(ChannelConformance):
    def rig(self) -> AbstractAsyncContextManager[ChannelRig]:
        return _rig()


@asynccontextmanager
async def _rig() -> AsyncIterator[ChannelRig]:
    yield LogRig()


async def test_a_delivery_is_one_line_of_json() -> None:
    rig = LogRig()
    await send_one(rig.channel, a_message("kim", message="one\ntwo", payload={"a": 1}))
    (line,) = rig.lines
    logged = json.loads(line)
    assert logged["recipient"] == "kim"
    assert logged["message"] == "one\ntwo"
    assert logged["data"] == {"order_id": "A-1024"}
    assert logged["payload"] == {"a": 1}
    assert logged["created_at"] == "2026-01-02T03:04:05Z"


async def test_a_batch_is_written_at_once_and_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    environment = Environment({})
    channel = log.make(environment, make_services(make_http(environment)))
    works = [a_work(a_message(str(number)), number) for number in range(500)]
    await channel.send(works, record_nothing)
    out = capsys.readouterr().out
    assert [json.loads(line)["recipient"] for line in out.splitlines()] == [
        str(number) for number in range(500)
    ]


async def test_a_stdout_that_is_closed_is_our_fault_and_spends_nothing() -> None:
    def broken(text: str) -> None:
        raise BrokenPipeError

    environment = Environment({})
    channel = log.make(environment, make_services(make_http(environment), print_line=broken))
    outcome = await send_one(channel, a_message(None))
    assert (outcome.kind, outcome.code) == (OutcomeKind.FAULT, "stdout_failed")
