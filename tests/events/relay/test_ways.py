"""Where events go: routes, dead letter topics, and payloads that are decrypted on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import pytest

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.composition.publishing import open_publishers
from allim.database.pool import Database
from allim.events.encryption import KeyRing
from allim.events.publishers.unsealing import Unsealing
from allim.events.relaying.message import OutboxMessage
from allim.events.relaying.routing import DeadLetterTopics, Routes
from allim.events.relaying.settings import OutboxSettings, parse_routes
from allim.relay.ordered.message import Line
from allim.relay.outcomes import Outcome, OutcomeKind
from tests.events.relay.conftest import REFUSED, RETRY, Outbox, World, relaying

KEY = b"k" * 32


def sealed(payload: bytes, keys: KeyRing, *, number: int = 1) -> OutboxMessage:
    event_id = uuid4()
    box = keys.seal(payload, event_id=event_id, topic="orders")
    return OutboxMessage(
        1, number, Line(1, "orders", "a"), str(event_id), "orders", "a", box.payload, {}, None,
        box.key, 0.0, 0, 0,
    )  # fmt: skip


def kinds(outcomes: Sequence[Outcome]) -> list[OutcomeKind]:
    return [outcome.kind for outcome in outcomes]


def test_the_first_route_that_fits_counts() -> None:
    routes = Routes(parse_routes("orders-*=sqs:https://q/1/orders, audit=log", "kafka"))
    topics = ["orders-new", "audit", "audits", "orders"]
    assert [routes(t) for t in topics] == ["sqs:https://q/1/orders", "log", "kafka", "kafka"]


@pytest.mark.parametrize("text", ["orders", "=log", "orders=", "orders=rabbit"])
def test_a_route_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="EVENTS_ROUTES: entry 1"):
        parse_routes(text, "log")


async def test_publishers_are_made_for_the_routes_that_are_there() -> None:
    environment = Environment({"EVENTS_ROUTES": "a*=sqs:http://127.0.0.1:1/1/q, *=log"})
    async with open_publishers(environment) as publishing:
        assert set(publishing.publishers) == {"sqs:q", "log"}
        assert [publishing.routes(topic) for topic in ("abc", "b")] == ["sqs:q", "log"]
    with pytest.raises(ConfigurationError, match="KAFKA_BOOTSTRAP_SERVERS is not set"):
        async with open_publishers(Environment({"EVENTS_ROUTES": "*=kafka"})):
            pass


def test_the_documents_defaults() -> None:
    limits = Environment({}).read(OutboxSettings).limits(20.0)
    assert (limits.batch, limits.batch_max, limits.max_retries) == (100, 1000, 3)
    assert (limits.poll, limits.retry_after, limits.lease) == (5.0, 60.0, 15.0)


async def test_payloads_are_decrypted_before_they_are_published(world: World) -> None:
    keys = KeyRing({"one": KEY})
    unsealing = Unsealing(world, keys)
    outcomes = await unsealing.publish([sealed(b"secret", keys)], lambda: True)
    assert kinds(outcomes) == [OutcomeKind.DELIVERED]
    assert [message.payload for message in world.came] == [b"secret"]


async def test_a_key_that_is_missing_makes_its_line_wait_and_spends_nothing(
    database: Database, outbox: Outbox, world: World
) -> None:
    keys = KeyRing({"one": KEY})
    batch = [sealed(b"1", keys), sealed(b"2", keys, number=2)]
    without = Unsealing(world, KeyRing({"two": KEY}))
    outcomes = await without.publish(batch[:2], lambda: True)
    assert kinds(outcomes) == [OutcomeKind.SNOOZED, OutcomeKind.RELEASED]
    assert outcomes[0].code == "encryption_key_missing"
    changed = replace(batch[0], payload=batch[0].payload[:-1] + b"!")
    outcomes = await Unsealing(world, keys).publish([changed, batch[1]], lambda: True)
    assert kinds(outcomes) == [OutcomeKind.REFUSED, OutcomeKind.RELEASED]
    assert world.came == []

    world.refuse("a1", Outcome.snooze("encryption_key_missing", 0.02), RETRY)
    await outbox.put(("a", "a1"), ("a", "a2"))
    async with relaying(database, world):
        rows = await outbox.until_all_are("SENT")
    assert [row["retry_count"] for row in rows] == [1, 0], "only the broker's refusal is counted"
    assert world.by_key() == {"a": ["a1", "a2"]}


async def test_a_dead_message_is_copied_to_its_dead_letter_topic(
    database: Database, outbox: Outbox, world: World
) -> None:
    dlq = World("orders.DLQ")
    routes = Routes([("*.DLQ", dlq.name), ("*", world.name)])
    publishers = {each.name: Unsealing(each, KeyRing()) for each in (world, dlq)}
    world.refuse("a1", REFUSED)
    await outbox.put(("a", "a1"), ("a", "a2"))
    async with relaying(database, world, dead_letters=DeadLetterTopics(".DLQ", publishers, routes)):
        rows = await outbox.until_all_are("SENT", "DEAD")
    (copy,) = dlq.came
    assert (copy.topic, copy.key, copy.payload, copy.id) == (
        "orders.DLQ", "a", b"a1", str(rows[0]["id"])
    )  # fmt: skip
    assert copy.headers["deadTopic"] == "orders"
    assert copy.headers["deadReason"] == "too_large"
    assert [row["status"] for row in rows] == ["DEAD", "SENT"]
    assert world.by_key() == {"a": ["a2"]}


async def test_a_dead_letter_that_cannot_be_copied_now_is_dead_later(
    database: Database, outbox: Outbox, world: World
) -> None:
    dlq = World("orders.DLQ")
    dlq.down = True
    publishers = {each.name: Unsealing(each, KeyRing()) for each in (world, dlq)}
    routes = Routes([("*.DLQ", dlq.name), ("*", world.name)])
    world.refuse("a1", *[REFUSED] * 99)
    await outbox.put(("a", "a1"), ("a", "a2"))
    async with relaying(database, world, dead_letters=DeadLetterTopics(".DLQ", publishers, routes)):
        await dlq.until(lambda: len(dlq.calls) > 2)
        assert set((await outbox.statuses()).values()) == {"FAILED", "PENDING"}
        dlq.down = False
        await outbox.until_all_are("SENT", "DEAD")
    assert [message.payload for message in dlq.came] == [b"a1"]


async def test_a_dead_letter_whose_topic_is_not_there_yet_is_copied_a_moment_later(
    database: Database, outbox: Outbox, world: World
) -> None:
    dlq = World("orders.DLQ")
    dlq.refuse("a1", Outcome.snooze("unknown_topic", 0.02))
    publishers = {each.name: Unsealing(each, KeyRing()) for each in (world, dlq)}
    routes = Routes([("*.DLQ", dlq.name), ("*", world.name)])
    world.refuse("a1", *[REFUSED] * 99)
    await outbox.put(("a", "a1"))
    letters = DeadLetterTopics(".DLQ", publishers, routes)
    async with relaying(database, world, dead_letters=letters, retry_after=3600.0):
        (row,) = await outbox.until_all_are("DEAD")
    assert [message.payload for message in dlq.came] == [b"a1"]
    assert row["retry_count"] == 0, "nobody has failed"
