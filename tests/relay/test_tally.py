"""What relays did, added up by minute."""

from __future__ import annotations

from allim.events.relaying.message import OutboxMessage
from allim.relay.observer import Silence
from allim.relay.ordered.box import Failure
from allim.relay.ordered.box import Settlement as Turn
from allim.relay.outcomes import Outcome
from allim.relay.several import SeveralObservers
from allim.relay.tally import MINUTES_KEPT, Cell, DeliveryTally, EventTally, Sums, Tally
from tests.relay.test_telemetry import settled


class Wall:
    """A wall clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 6_000.0

    def __call__(self) -> float:
        return self.now


def a_message(topic: str) -> OutboxMessage:
    """A message without a key."""
    return OutboxMessage(0, 1, None, "id", topic, None, b"", {}, None, None, 0.0, 0, 0)


def test_attempts_are_told_apart_by_what_became_of_them() -> None:
    tally = Tally(Wall())
    told = SeveralObservers(Silence(), DeliveryTally(tally))

    told.settled(
        "EMAIL",
        [
            settled(Outcome.delivered(), seconds=0.5),
            settled(Outcome.accepted(), seconds=1.5),
            settled(Outcome.retry("http_503"), seconds=0.0),
            settled(Outcome.refused("http_400")),
            settled(Outcome.skip("canceled"), seconds=0.0),
            settled(Outcome.snooze("rate", 1.0), seconds=0.0),
            settled(Outcome.delivered(), landed=False),
        ],
    )

    assert tally.take() == {
        Cell(6_000, "delivery", "EMAIL"): Sums(2, 1, 1, 1, 1, 3, 2.02, 1.5),
    }
    assert tally.take() == {}


def test_events_are_added_up_by_topic() -> None:
    tally = Tally(Wall())
    told = EventTally(tally)
    a, b, c, d = (a_message(topic) for topic in ("orders", "orders", "mail", "mail"))

    told.settled(Turn([a], [Failure(b, "no", "")], [Failure(c, "no", ""), Failure(d, "no", "")]), 2)
    told.slots(64, 1)
    told.paused("kafka", is_paused=True, reason="gone")

    assert tally.take() == {
        Cell(6_000, "outbox", "orders"): Sums(1, 1, calls=1, call_seconds=2, slowest=2),
        Cell(6_000, "outbox", "mail"): Sums(dead=2),
    }
    assert (tally.slots, [b.target for b in tally.broken]) == (64, ["kafka"])
    told.paused("kafka", is_paused=False)
    assert tally.broken == []


def test_what_was_not_written_is_taken_again_and_whole() -> None:
    wall = Wall()
    tally = Tally(wall)
    tally.sums("delivery", "LOG").add("delivered", 2)
    lost = tally.take()
    tally.put_back(lost)
    tally.sums("delivery", "LOG").add("delivered", 3)
    assert tally.take() == {Cell(6_000, "delivery", "LOG"): Sums(5)}

    wall.now += 61
    tally.sums("delivery", "LOG").add("delivered", 1)
    wall.now -= 600
    tally.sums("delivery", "LOG").add("delivered", 1)
    assert tally.take() == {Cell(6_060, "delivery", "LOG"): Sums(2)}, "no minute comes again"


def test_a_long_time_without_a_database_is_bounded() -> None:
    wall = Wall()
    tally = Tally(wall)
    for _ in range(3 * MINUTES_KEPT):
        wall.now += 60
        tally.sums("delivery", "LOG").add("delivered", 1)

    assert len(tally.take()) == MINUTES_KEPT + 1


def test_minutes_are_those_of_the_database() -> None:
    wall = Wall()
    tally = Tally(wall)
    tally.align(wall.now + 3600)
    tally.sums("delivery", "LOG")
    assert [cell.minute for cell in tally.take()] == [9_600]
