"""Which publisher a topic goes to, and where dead messages are copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from allim.events.publishers.unsealing import Unsealing
from allim.events.relaying.message import OutboxMessage
from allim.relay.ordered.box import Failure
from allim.relay.ordered.message import Line
from allim.relay.ordered.publisher import DELIVERED, MaySend
from allim.relay.outcomes import Outcome

TOPICS_REMEMBERED = 10_000


class Routes:
    """Patterns of topics with the names of publishers; the first that fits counts."""

    def __init__(self, routes: Sequence[tuple[str, str]]) -> None:
        self._routes = routes
        self._found: dict[str, str] = {}

    def __call__(self, topic: str) -> str:
        """The publisher of a topic."""
        name = self._found.get(topic)
        if name is None:
            if len(self._found) >= TOPICS_REMEMBERED:
                self._found.clear()
            name = next(name for pattern, name in self._routes if fnmatchcase(topic, pattern))
            self._found[topic] = name
        return name


class DeadLetterTopics:
    """Copies dead messages to the topic of their topic's name and a suffix.

    A copy says in its headers what it was and why it died. A queue has no topics: a copy for
    one goes nowhere unless a route of its own leads elsewhere.
    """

    def __init__(self, suffix: str, publishers: Mapping[str, Unsealing], routes: Routes) -> None:
        self._suffix = suffix
        self._publishers = publishers
        self._routes = routes

    async def publish(
        self, failures: Sequence[Failure[OutboxMessage]], may_send: MaySend
    ) -> Sequence[Outcome]:
        """Publish a copy of each."""
        return [await self._copy(failure, may_send) for failure in failures]

    async def _copy(self, failure: Failure[OutboxMessage], may_send: MaySend) -> Outcome:
        message = failure.message
        topic = message.topic + self._suffix
        name = self._routes(topic)
        if name == self._routes(message.topic) and name.startswith("sqs:"):
            return DELIVERED
        publisher = self._publishers[name]
        # Opened first: it is bound to the topic that it was written for.
        opened, trouble = publisher.opened(message)
        if trouble is not None:
            return Outcome.refused(trouble.code or "not_opened", trouble.detail)
        copy = replace(
            opened,
            topic=topic,
            line=None if message.key is None else Line(message.slot, topic, message.key),
            headers={
                **message.headers,
                "deadTopic": message.topic,
                "deadReason": failure.code,
                "deadDetail": failure.detail,
                "deadRetries": str(message.retry_count),
            },
        )
        (outcome,) = await publisher.publish([copy], may_send)
        return outcome
