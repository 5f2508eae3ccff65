"""The cases of a channel: checks, hard texts, providers in every mood, secrets."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import Any

from structlog.testing import capture_logs

from allim.channels.channel import Draft, Message
from allim.relay.outcomes import RESPONSE_LIMIT, Outcome, OutcomeKind
from allim.testing.channels.messages import a_message, a_work, record_nothing, send_one
from allim.testing.channels.rigs import ChannelRig, Mood

HARD_TEXTS = (
    "결제 실패: 카드 승인이 거절되었습니다",
    "𝄞 four-byte 😀👩‍👩‍👧‍👦 text",
    "a line\r\nBcc: everybody@example.com\r\n\r\nand another\n.\n.",
    'tags <b>&amp;</b> "quoted" \'text\' \\ {"json": 1}',
    "\u202eright to left\u200b\ufeff\x07\x1b[31m",
    "길다 " * 20_000,
)
"""Texts that break what was written for ASCII; all must pass a channel unharmed or refused."""

PAYLOAD_KEYS = (
    "html subject text blocks attachments headers body reply_to content embeds thread_id card"
    " parse_mode reply_markup subscription ttl urgency topic format"
)
"""What one channel or another reads of a payload."""

NOT_FAILED = frozenset({OutcomeKind.DELIVERED, OutcomeKind.ACCEPTED})
TRY_AGAIN = frozenset({OutcomeKind.RETRY, OutcomeKind.UNKNOWN})


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
        odd: dict[str, Any] = dict.fromkeys(PAYLOAD_KEYS.split(), 7)
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
