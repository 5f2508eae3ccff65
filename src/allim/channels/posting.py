"""What channels share that make one HTTP call for each delivery."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from allim.channels.answers import outcome_of_failure
from allim.channels.channel import ChannelServices, HttpAnswer, Message
from allim.channels.hooks import without_secret
from allim.channels.http.failure import HttpFailure
from allim.channels.json_bytes import JSON_HEADERS
from allim.channels.sending import Sending
from allim.relay.outcomes import RESPONSE_LIMIT, Outcome
from allim.relay.sender import RecordProviderId
from allim.relay.work import Work

log = structlog.get_logger("allim.channels.posting")


class PostingChannel(ABC):
    """A channel that posts each delivery by itself, and has nobody to ask afterwards.

    A channel adds `check`, `configured`, `target` and `deliver`, and says in `deliver` what the
    answers mean.
    """

    name: str
    gone_level = logging.ERROR
    """How loudly it is told that a target is gone."""

    def __init__(self, sending: Sending, services: ChannelServices) -> None:
        self.limits = sending.limits
        self._timeout = sending.timeout
        self._http = services.http

    @abstractmethod
    def target(self, content: Message) -> str:
        """Who is called; never a secret."""

    @abstractmethod
    async def deliver(self, message: Message) -> Outcome:
        """Send one message."""

    async def send(
        self, batch: Sequence[Work[Message]], record: RecordProviderId[Message]
    ) -> Sequence[Outcome]:
        """Deliver each; see the channel's module for what answers mean."""
        return [await self._deliver_and_tell(work.content) for work in batch]

    async def reconcile(self, work: Work[Message]) -> Outcome | None:
        """Nobody can be asked what became of a call."""
        return None

    async def diagnose(self) -> str | None:
        """Nothing can be tried without a message to somebody."""
        return None

    async def close(self) -> None:
        """The HTTP client is shared and closed by whoever made it."""
        return

    async def post(
        self,
        url: str,
        read: Callable[[HttpAnswer], Outcome],
        *,
        body: bytes,
        headers: Mapping[str, str] = JSON_HEADERS,
        trusted: bool,
        secret: str = "",
        timeout: float | None = None,
        limit: int = RESPONSE_LIMIT,
    ) -> Outcome:
        """Post, and let `read` say what the answer means; no answer is an outcome, too.

        An answer that echoes `secret`, or a part of that URL, is kept without it. `timeout` is
        seconds, the channel's own if None; `limit` is how many bytes of an answer are read, more
        than are ever kept.
        """
        try:
            answer = await self._http.request(
                "POST",
                url,
                body=body,
                headers=headers,
                timeout=self._timeout if timeout is None else timeout,
                trusted=trusted,
                limit=limit,
            )
        except HttpFailure as failure:
            return outcome_of_failure(failure, at_most_once=self.limits.at_most_once)
        if secret:
            answer = replace(answer, body=without_secret(answer.body, secret))
        outcome = read(answer)
        if outcome.response is not None and len(outcome.response) > RESPONSE_LIMIT:
            return replace(outcome, response=outcome.response[:RESPONSE_LIMIT])
        return outcome

    async def _deliver_and_tell(self, message: Message) -> Outcome:
        outcome = await self.deliver(message)
        if outcome.disable_target:
            log.log(
                self.gone_level,
                "target_gone",
                channel=self.name,
                target=self.target(message),
                status=outcome.http_status,
                reason=outcome.code,
            )
        return outcome
