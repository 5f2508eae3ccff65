"""The cases that every channel must pass. Allim's own do; run them on yours.

    class TestPager(ChannelConformance):
        def rig(self):
            return PagerRig.open()

Every case is a coroutine method, for pytest-asyncio in its auto mode. A provider that does
not apply to a channel (LOG calls nobody) is left out of its rig's `moods`.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from structlog.testing import capture_logs

from allim.base.settings import Environment
from allim.channels.channel import Channel, ChannelServices, Draft, Message
from allim.channels.registry import make_http, make_services
from allim.relay.outcomes import RESPONSE_LIMIT, Outcome, OutcomeKind
from allim.relay.work import Content, Work
from allim.testing.http import Answer, HttpSink, Request

CLAIM = "0190163d-8694-739b-aea5-966c26f8ad90"
NOTIFICATION = UUID("0190163d-8694-739b-aea5-966c26f8ad91")

HARD_TEXTS = (
    "결제 실패: 카드 승인이 거절되었습니다",
    "𝄞 four-byte 😀👩‍👩‍👧‍👦 text",
    "a line\r\nBcc: everybody@example.com\r\n\r\nand another\n.\n.",
    'tags <b>&amp;</b> "quoted" \'text\' \\ {"json": 1}',
    "\u202eright to left\u200b\ufeff\x07\x1b[31m",
    "길다 " * 20_000,
)
"""Texts that break what was written for ASCII; all must pass a channel unharmed or refused."""

NOT_FAILED = frozenset({OutcomeKind.DELIVERED, OutcomeKind.ACCEPTED})
TRY_AGAIN = frozenset({OutcomeKind.RETRY, OutcomeKind.UNKNOWN})


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


def a_message(recipient: str | None, **parts: Any) -> Message:
    """A message; `parts` are fields of `Message` to be other than usual."""
    usual = Message(
        delivery_id=4711,
        notification_id=NOTIFICATION,
        channel="TEST",
        recipient=recipient,
        title="결제 실패",
        message="카드 승인이 거절되었습니다",
        type="PAYMENT_FAILED",
        source="payment-service",
        data={"order_id": "A-1024"},
        payload={},
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    return replace(usual, **parts)


def a_work(message: Content, work_id: int = 4711) -> Work[Content]:
    """A claimed piece of work for its first attempt, with a lease that does not end."""
    return Work(work_id, CLAIM, 1, 0, 8, 0, float("inf"), message)


async def record_nothing(works: Sequence[Work[Message]], provider_id: str) -> bool:
    """A `RecordProviderId` that says yes."""
    return True


async def send_one(channel: Channel, message: Message) -> Outcome:
    """Send one message; its outcome."""
    (outcome,) = await channel.send([a_work(message)], record_nothing)
    return outcome


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


class ChannelConformance(ABC):
    """Subclass it, and make a rig."""

    @abstractmethod
    def rig(self) -> AbstractAsyncContextManager[ChannelRig]:
        """A new channel with its provider, which is well; closed by whoever made it."""

    async def test_a_good_draft_passes_the_check(self) -> None:
        """And the words of it are no secret to `configured`."""
        async with self.rig() as rig:
            assert list(rig.channel.check(_draft(rig.recipient, rig))) == []
            assert rig.channel.configured().mode in {"live", "mock", "not_configured"}
            await rig.channel.close()

    async def test_a_bad_recipient_is_named_with_its_place(self) -> None:
        """The place is a JSON pointer into the draft."""
        async with self.rig() as rig:
            for bad in rig.bad_recipients:
                problems = rig.channel.check(_draft(bad, rig))
                assert [p.place for p in problems] == ["/recipient"], bad
                assert all(p.code and p.message for p in problems)
            await rig.channel.close()

    async def test_a_bad_recipient_that_was_stored_all_the_same_is_an_outcome(self) -> None:
        """Children and old rows come past the check."""
        async with self.rig() as rig:
            for bad in rig.bad_recipients:
                outcome = await send_one(rig.channel, _message(rig, recipient=bad))
                assert outcome.kind is OutcomeKind.REFUSED, bad
            await rig.channel.close()

    async def test_every_work_of_a_batch_has_its_outcome(self) -> None:
        """As many as were given, and a call without any is nothing."""
        async with self.rig() as rig:
            count = rig.channel.limits.batch
            batch = [a_work(_message(rig), number) for number in range(count)]
            outcomes = await rig.channel.send(batch, record_nothing)
            assert [outcome.kind in NOT_FAILED for outcome in outcomes] == [True] * count
            assert await rig.channel.send([], record_nothing) == []
            await rig.channel.close()

    async def test_hard_texts_arrive_or_are_refused(self) -> None:
        """In the title, the message and the data."""
        async with self.rig() as rig:
            for text in HARD_TEXTS:
                before = len(await rig.received())
                message = _message(rig, title=text[:200], message=text, data={"t": text})
                outcome = await send_one(rig.channel, message)
                assert outcome.kind in NOT_FAILED | {OutcomeKind.REFUSED}
                if outcome.kind in NOT_FAILED and outcome.code is None:
                    assert len(await rig.received()) == before + 1
                    arrived = (await rig.received())[-1]
                    assert text.split("\r")[0][:80] in arrived + _unescaped(arrived)
            await rig.channel.close()

    async def test_odd_content_is_an_outcome_never_an_exception(self) -> None:
        """Nothing to say, and payloads of the wrong shape."""
        odd: dict[str, Any] = dict.fromkeys(
            (
                *(
                    "html",
                    "subject",
                    "text",
                    "blocks",
                    "attachments",
                    "headers",
                    "body",
                    "reply_to",
                ),
                *("content", "embeds", "thread_id", "card", "parse_mode", "reply_markup"),
                *("subscription", "ttl", "urgency", "topic", "format"),
            ),
            7,
        )
        async with self.rig() as rig:
            for parts in (
                {"title": None, "message": None},
                {"title": "", "message": "", "data": {}},
                {"payload": odd},
                {"payload": {key: {"a": [None]} for key in odd}},
                {"title": "\ud800 lone \x00", "message": "\udfff\x00"},
            ):
                outcome = await send_one(rig.channel, _message(rig, **parts))
                assert isinstance(outcome, Outcome)
                assert outcome.kind is not OutcomeKind.FAULT
            await rig.channel.close()

    async def test_a_provider_that_is_down_means_retry(self) -> None:
        """And once it is back the next send works."""
        await self._fails_then_works(Mood.DOWN)

    async def test_a_provider_that_hangs_ends_within_the_timeout(self) -> None:
        """The channel itself ends it, before the engine must."""
        await self._fails_then_works(Mood.HANGING)

    async def test_garbage_is_an_outcome(self) -> None:
        """Bytes that are no answer."""
        await self._fails_then_works(Mood.GARBAGE)

    async def test_secrets_are_seen_nowhere(self) -> None:
        """Whatever the provider does."""
        async with self.rig() as rig:
            seen: list[str] = []
            handler = _Collect(seen)
            logging.getLogger().addHandler(handler)
            try:
                with capture_logs() as logs:
                    for mood in sorted(rig.moods):
                        await rig.turn(mood)
                        outcome = await send_one(rig.channel, _message(rig))
                        seen.append(f"{outcome.code} {outcome.detail} {outcome.response}")
                        seen.append(str(await rig.channel.diagnose()))
            finally:
                logging.getLogger().removeHandler(handler)
            seen.append(str(logs))
            seen.append(rig.channel.target(_message(rig)))
            seen.append(str(rig.channel.configured()))
            for secret in rig.secrets:
                assert not any(secret in text for text in seen)
            await rig.channel.close()

    async def test_close_leaves_no_connection(self) -> None:
        """And may be called twice."""
        async with self.rig() as rig:
            await send_one(rig.channel, _message(rig))
            await rig.channel.close()
            await rig.channel.close()
            await rig.all_closed()

    async def test_nobody_knows_or_an_outcome(self) -> None:
        """Reconciling never raises for a call that was never made."""
        async with self.rig() as rig:
            outcome = await rig.channel.reconcile(a_work(_message(rig)))
            assert outcome is None or isinstance(outcome, Outcome)
            await rig.channel.close()

    async def _fails_then_works(self, mood: Mood) -> None:
        async with self.rig() as rig:
            if mood in rig.moods:
                await rig.turn(mood)
                async with asyncio.timeout(rig.channel.limits.call_timeout):
                    outcome = await send_one(rig.channel, _message(rig))
                assert outcome.kind in TRY_AGAIN, outcome
                assert outcome.code
                assert len(outcome.response or "") <= RESPONSE_LIMIT
                await rig.turn(Mood.WELL)
            outcome = await send_one(rig.channel, _message(rig))
            assert outcome.kind in NOT_FAILED, outcome
            await rig.channel.close()


class _Collect(logging.Handler):
    """Keeps every line that the standard library's logging is given."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())


def _draft(recipient: str | None, rig: ChannelRig) -> Draft:
    return Draft(recipient, "결제 실패", "카드 승인이 거절되었습니다", None, rig.payload)


def _message(rig: ChannelRig, **parts: Any) -> Message:
    return a_message(**{"recipient": rig.recipient, "payload": rig.payload, **parts})


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
