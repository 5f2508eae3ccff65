"""Sending by groups, so that no message goes out twice whatever breaks in between.

A group belongs to one attempt. It is made, its id is stored with the attempts, it is filled and
then sent; only the last call is irrevocable. Whoever is in doubt asks for the group by its id:

* sent, or being sent: its messages say what became of each;
* not sent: it is deleted, and only when that is confirmed nothing of it can go out any more,
  also not by a relay that was thought dead and wakes.

Adding is never repeated. A number stands once in a group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.errors import DatabaseUnavailable
from allim.channels.channel import Message
from allim.channels.solapi.answers import SolapiMessage
from allim.channels.solapi.client import SolapiClient, SolapiFailure, Stage
from allim.channels.solapi.codes import (
    AGAIN,
    ALARMING,
    BALANCE_SECONDS,
    NOT_YET,
    Verdict,
    outcome_of,
    verdict_of,
)
from allim.channels.solapi.fates import Fate, Fates
from allim.channels.solapi.letters import Letter, by_work, ids_of, one_number_each
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.relay.sender import RecordProviderId
from allim.relay.work import Work

START_SHARE = 0.5
"""A group is only begun while this share of the send's time is left."""
GROUPS_AT_ONCE = 8
SKEW_SECONDS = 60.0
ONE_BY_ONE = frozenset({400, 413})
"""Refusals of a whole batch that one bad message may be the reason of."""

log = structlog.get_logger("allim.channels.solapi")

Outcomes = dict[int, Outcome]
DoubleCheck = Callable[[Sequence[Work[Message]]], Awaitable[Mapping[int, Outcome]]]
"""Asked again when everything stands ready: the outcomes of those that must not go out."""


class GroupSender:
    """Sends letters by groups. `timeout` is the seconds that one `send` may take in all."""

    def __init__(
        self,
        client: SolapiClient,
        *,
        timeout: float,
        clock: Clock = SYSTEM_CLOCK,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._timeout = timeout
        self._clock = clock
        self._now = now
        self._fates = Fates(client, timeout=timeout, clock=clock)
        self._paused_until = 0.0
        self.double_check: DoubleCheck | None = None

    async def send(
        self, letters: Sequence[Letter], record: RecordProviderId[Message]
    ) -> Mapping[int, Outcome]:
        """Send letters; an outcome for each, by the id of its work."""
        deadline = self._clock() + self._timeout
        outcomes, fresh = await self._what_became_before(letters, deadline)
        places = asyncio.Semaphore(GROUPS_AT_ONCE)

        async def one(group: Sequence[Letter]) -> Outcomes:
            async with places:
                return await self._send_group(group, record, deadline)

        for sent in await asyncio.gather(*map(one, one_number_each(fresh))):
            outcomes.update(sent)
        return outcomes

    async def ask(self, letter_key: str, to: str | None, group_id: str) -> Outcome | None:
        """What became of one letter of a group; None when it certainly never goes out by it.

        Raises SolapiFailure while that cannot be known.
        """
        fate = await self._fates.of(group_id, self._clock() + self._timeout)
        return self._outcome_in(fate, letter_key, to, group_id)

    # Before

    async def _what_became_before(
        self, letters: Sequence[Letter], deadline: float
    ) -> tuple[Outcomes, list[Letter]]:
        """Settle what an earlier attempt's group tells; the letters that may be sent anew.

        The engine brings back only what was not sent. This looks all the same: it costs one
        call a group, and a text that goes out twice cannot be called back.
        """
        outcomes: Outcomes = {}
        fresh: list[Letter] = []
        for letter in letters:
            group_id = letter.work.content.provider_id
            if group_id is None:
                fresh.append(letter)
                continue
            try:
                fate = await self._fates.of(group_id, deadline)
            except SolapiFailure as failure:
                if failure.status == 404:
                    # Gone from Solapi since: nothing waits in it any more.
                    fresh.append(letter)
                else:
                    outcomes[letter.work.id] = Outcome.unknown(failure.code, str(failure))
                continue
            outcome = self._outcome_in(fate, letter.key, letter.to, group_id)
            if outcome is None or outcome.kind in (OutcomeKind.RETRY, OutcomeKind.SNOOZED):
                fresh.append(letter)
            else:
                outcomes[letter.work.id] = outcome
        return outcomes, fresh

    # One group

    async def _send_group(
        self, letters: Sequence[Letter], record: RecordProviderId[Message], deadline: float
    ) -> Outcomes:
        """Make, fill and send one group."""
        if (pause := self._paused_until - self._clock()) > 0:
            return _all(letters, Outcome.snooze("solapi_paused", pause, "Solapi takes nothing now"))
        if deadline - self._clock() < self._timeout * START_SHARE:
            return _all(letters, Outcome.snooze("no_time_left", 0.0, "its batch took too long"))
        try:
            group_id = await self._client.create_group(timeout=self._fates.left(deadline))
        except SolapiFailure as failure:
            return _all(letters, self._not_sent(failure))
        try:
            ours = await record([letter.work for letter in letters], group_id)
        except DatabaseUnavailable as gone:
            return _all(letters, Outcome.snooze("database_unavailable", 1.0, str(gone)))
        if not ours:
            return _all(letters, Outcome.snooze("claim_lost", 0.0, "a claim was taken over"))
        for letter in letters:
            # Whoever asks in this process what became of the call must know the group, too.
            letter.work.content = replace(letter.work.content, provider_id=group_id)
        return await self._fill_and_send(group_id, letters, record, deadline)

    async def _fill_and_send(
        self,
        group_id: str,
        letters: Sequence[Letter],
        record: RecordProviderId[Message],
        deadline: float,
    ) -> Outcomes:
        try:
            bodies = [letter.body for letter in letters]
            told = await self._client.add_messages(
                group_id, bodies, timeout=self._fates.left(deadline)
            )
            found = await self._found(group_id, letters, told, deadline)
        except SolapiFailure as failure:
            discarded = await self._fates.discard(group_id, deadline)
            if failure.status not in ONE_BY_ONE or len(letters) == 1:
                return _all(letters, self._not_sent(failure))
            if not discarded:
                return _all(letters, Outcome.retry(failure.code, str(failure)))
            return await self._send_halves(letters, record, deadline)
        outcomes, taken = self._refused_at_once(letters, found)
        against = await self._objections(group_id, taken, found, deadline)
        outcomes.update(against)
        taken = [letter for letter in taken if letter.work.id not in against]
        if not taken:
            await self._fates.discard(group_id, deadline)
            return outcomes
        return outcomes | await self._send_filled(group_id, taken, found, deadline)

    async def _send_halves(
        self, letters: Sequence[Letter], record: RecordProviderId[Message], deadline: float
    ) -> Outcomes:
        """Narrow down which message Solapi refuses a whole batch for."""
        middle = len(letters) // 2
        first = await self._send_group(letters[:middle], record, deadline)
        return first | await self._send_group(letters[middle:], record, deadline)

    async def _send_filled(
        self,
        group_id: str,
        letters: Sequence[Letter],
        found: Mapping[int, SolapiMessage],
        deadline: float,
    ) -> Outcomes:
        """The one irrevocable call; where its end was not seen, ask."""
        try:
            await self._client.send_group(group_id, timeout=self._fates.left(deadline))
        except SolapiFailure as failure:
            # 400 may mean that the group was sent, or deleted, by somebody else.
            if failure.stage is not Stage.UNSEEN and failure.status != 400:
                await self._fates.discard(group_id, deadline)
                return _all(letters, self._not_sent(failure))
            return await self._after_doubt(group_id, letters, failure, deadline)
        return {
            letter.work.id: Outcome.accepted(
                http_status=200, **ids_of(group_id, found.get(letter.work.id))
            )
            for letter in letters
        }

    async def _after_doubt(
        self, group_id: str, letters: Sequence[Letter], failure: SolapiFailure, deadline: float
    ) -> Outcomes:
        try:
            fate = await self._fates.of(group_id, deadline)
        except SolapiFailure as silence:
            return _all(letters, Outcome.unknown(silence.code, f"{failure}; then {silence}"))
        return {
            letter.work.id: self._outcome_in(fate, letter.key, letter.to, group_id)
            or self._not_sent(failure)
            for letter in letters
        }

    # What Solapi says of single messages

    async def _found(
        self,
        group_id: str,
        letters: Sequence[Letter],
        told: Sequence[SolapiMessage],
        deadline: float,
    ) -> Mapping[int, SolapiMessage]:
        """What is said of each letter, by the id of its work; asks where an answer is silent."""
        found = by_work(letters, told)
        if len(found) == len(letters):
            return found
        silent = [letter for letter in letters if letter.work.id not in found]
        listed = await self._client.messages(group_id, timeout=self._fates.left(deadline))
        return {**found, **by_work(silent, listed)}

    def _refused_at_once(
        self, letters: Sequence[Letter], found: Mapping[int, SolapiMessage]
    ) -> tuple[Outcomes, list[Letter]]:
        outcomes: Outcomes = {}
        taken: list[Letter] = []
        for letter in letters:
            said = found.get(letter.work.id)
            if said is None:
                outcomes[letter.work.id] = Outcome.retry(
                    "not_registered", "Solapi did not keep the message"
                )
            elif verdict_of(said.code) in NOT_YET | {Verdict.DELIVERED}:
                taken.append(letter)
            else:
                outcomes[letter.work.id] = self._verdict(said)
        return outcomes, taken

    def _outcome_in(self, fate: Fate, key: str, to: str | None, group_id: str) -> Outcome | None:
        said = fate.message(key, to)
        return None if said is None else self._verdict(said, **ids_of(group_id, said))

    def _verdict(self, said: SolapiMessage, **more: str | None) -> Outcome:
        verdict = verdict_of(said.code)
        if verdict in ALARMING:
            log.error("solapi_alarm", code=said.code, verdict=verdict.value, words=said.words)
        if verdict is Verdict.NO_BALANCE:
            self._paused_until = self._clock() + BALANCE_SECONDS
        outcome = outcome_of(said.code, said.words, self._now(), **more)
        if verdict in AGAIN or outcome.kind is OutcomeKind.REFUSED:
            log.info("solapi_message_refused", code=said.code, verdict=verdict.value)
        return outcome

    async def _objections(
        self,
        group_id: str,
        letters: Sequence[Letter],
        found: Mapping[int, SolapiMessage],
        deadline: float,
    ) -> Outcomes:
        """The second check, right before the send; what it hits is taken out of the group."""
        if self.double_check is None or not letters:
            return {}
        try:
            async with asyncio.timeout(self._fates.left(deadline)):
                against = dict(await self.double_check([letter.work for letter in letters]))
        except Exception as error:
            # The check's own boundary: when it fails nothing is sent.
            log.warning("double_check_failed", error=repr(error))
            late = Outcome.snooze("guard_failed", 5.0, "the check right before the send failed")
            return _all(letters, late)
        if not against or len(against) == len(letters):
            return against
        ids = [found[work_id].message_id for work_id in against if work_id in found]
        known = [message_id for message_id in ids if message_id is not None]
        try:
            if len(known) != len(against):
                raise SolapiFailure(Stage.NOT_NOW, "no_message_id", "a message has no id")
            await self._client.remove_messages(group_id, known, timeout=self._fates.left(deadline))
        except SolapiFailure as failure:
            # Whether they are out of it is not known, so the group must not be sent.
            late = Outcome.snooze("not_removed", 0.0, str(failure))
            return {letter.work.id: against.get(letter.work.id, late) for letter in letters}
        return against

    # Outcomes

    def _not_sent(self, failure: SolapiFailure) -> Outcome:
        """What a failure before the send means; nothing of the group goes out."""
        about: dict[str, Any] = {"http_status": failure.status, "response": failure.response}
        if failure.stage is Stage.NO_BALANCE:
            log.error("solapi_alarm", code=failure.code, verdict=Verdict.NO_BALANCE.value)
            self._paused_until = self._clock() + BALANCE_SECONDS
            return Outcome.snooze("solapi_balance", BALANCE_SECONDS, str(failure))
        if failure.stage is Stage.SKEWED:
            return Outcome.snooze("clock_skew", SKEW_SECONDS, str(failure))
        if failure.stage is Stage.NEVER:
            return Outcome.refused(failure.code, str(failure), **about)
        return Outcome.retry(failure.code, str(failure), retry_after=failure.wait, **about)


def _all(letters: Sequence[Letter], outcome: Outcome) -> Outcomes:
    return {letter.work.id: outcome for letter in letters}
