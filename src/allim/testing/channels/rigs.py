"""Rigs: a channel with the fake of its provider, which behaves as it is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, Self

from allim.base.settings import Environment
from allim.channels.channel import Channel, ChannelServices
from allim.channels.registry import make_http, make_services
from allim.relay.outcomes import Outcome
from allim.testing.channels.messages import a_message, send_one
from allim.testing.http import Answer, HttpSink, Request


class Mood(StrEnum):
    """How the provider behind a channel may behave."""

    WELL = "well"
    DOWN = "down"
    HANGING = "hanging"
    GARBAGE = "garbage"


class ChannelRig(ABC):
    """A channel with its fake provider.

    `recipient` is a good one, `payload` what it needs beside it; `bad_recipients` are refused by
    `check`. `secrets` must never
    be seen in outcomes, targets or logs. Give the channel a timeout of a few seconds: the cases
    with a provider that hangs wait for it.
    """

    channel: Channel
    recipient: str | None = None
    payload: Mapping[str, Any] = {}
    bad_recipients: Sequence[str | None] = ()
    secrets: Sequence[str] = ()
    moods: frozenset[Mood] = frozenset(Mood)

    @abstractmethod
    async def turn(self, mood: Mood) -> None:
        """Make the provider behave so from now on."""

    @abstractmethod
    async def received(self) -> Sequence[str]:
        """The texts that the provider took, decoded, first one first."""

    @abstractmethod
    async def all_closed(self) -> None:
        """Wait until the provider sees no open connection from us."""


class HttpRig(ChannelRig):
    """A channel whose provider is one HTTP server, `sink`, that answers `well` when it is well.

    A rig adds `settings`, `make` and `text_of`; `PagerRig.open(PAGER_TIMEOUT_SECONDS="2")` opens
    one with those settings over its own, and closes it.
    """

    well = Answer.of(200, "ok")

    def __init__(self, sink: HttpSink, **settings: str) -> None:
        self.sink = sink
        self.environment = Environment({**self.settings(sink.url), **settings})
        self.http = make_http(self.environment)
        self.channel = self.make(self.environment, make_services(self.http))
        sink.answer(self.well)

    @abstractmethod
    def settings(self, url: str) -> Mapping[str, str]:
        """The settings that lead to a provider at `url`."""

    @abstractmethod
    def make(self, environment: Environment, services: ChannelServices) -> Channel:
        """Make the channel."""

    @abstractmethod
    def text_of(self, request: Request) -> str:
        """The text that the provider takes from a request."""

    @classmethod
    @asynccontextmanager
    async def open(cls, **settings: str) -> AsyncIterator[Self]:
        """A rig with its server; these settings go over its own."""
        async with HttpSink() as sink:
            rig = cls(sink, **settings)
            try:
                yield rig
            finally:
                await rig.http.close()

    async def send(self, *answers: Answer, **parts: Any) -> Outcome:
        """Send one message to the rig's recipient while the provider answers with these.

        `parts` are fields of `Message` to be other than usual.
        """
        if answers:
            self.sink.answer(*answers)
        usual = {"recipient": self.recipient, "payload": self.payload}
        return await send_one(self.channel, a_message(**{**usual, **parts}))

    async def turn(self, mood: Mood) -> None:
        """Make the server behave so from now on."""
        await turn_http(self.sink, mood, well=self.well)

    async def received(self) -> Sequence[str]:
        """The texts of the requests that came."""
        return [self.text_of(request) for request in self.sink.requests]

    async def all_closed(self) -> None:
        """Close the client, and wait until the server sees it."""
        await self.http.close()
        await self.sink.all_closed()


async def turn_http(sink: HttpSink, mood: Mood, *, well: str | Answer = "ok") -> None:
    """Make an HTTP provider behave so; `well` is its good answer, or the body of one."""
    await sink.stop()
    if mood is not Mood.DOWN:
        await sink.start()
    good = Answer.of(200, well) if isinstance(well, str) else well
    sink.answer(
        {
            Mood.WELL: good,
            Mood.DOWN: good,
            Mood.HANGING: Answer.hang(),
            Mood.GARBAGE: Answer.cut(b"\x00\xff\xfe this is not HTTP \r\n\r\n" * 10),
        }[mood]
    )
