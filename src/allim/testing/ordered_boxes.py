"""The cases that every ordered box must pass. Allim's own do; run them on yours.

    class TestMyBox(OrderedBoxConformance):
        @pytest.fixture
        async def harness(self):
            yield MyHarness()

Every case is a coroutine method, for pytest-asyncio in its auto mode.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from allim.events.relaying.message import OutboxMessage
from allim.events.slots import slot_of
from allim.relay.ordered.box import Failure, Landed, OrderedBox, Settlement
from allim.relay.ordered.limits import SLOTS
from allim.relay.ordered.message import Line

LEASE = 60.0
ME = "me"
ALL = range(SLOTS)
FROM_THE_BOTTOM = [(slot, 0) for slot in ALL]


@dataclass(frozen=True, slots=True)
class EventState:
    """How an event stands. `waits` is seconds until it is due, None where it has no time."""

    payload: str
    status: str
    parked: bool
    retry_count: int
    error: str | None
    waits: float | None
    seq: int


class OpenTransaction(Protocol):
    """A producer's transaction."""

    async def put(self, *events: tuple[str | None, str]) -> None:
        """Write events, each a key and a payload."""

    async def commit(self) -> None:
        """Commit it."""

    async def rollback(self) -> None:
        """Roll it back."""


class OrderedBoxHarness(ABC):
    """What the cases reach a box by."""

    box: OrderedBox[OutboxMessage]

    @abstractmethod
    def where_dead_block(self) -> OrderedBox[OutboxMessage]:
        """The same store by a box in which what is dead blocks its line."""

    @abstractmethod
    async def begin(self) -> OpenTransaction:
        """Begin a producer's transaction."""

    @abstractmethod
    async def states(self) -> Sequence[EventState]:
        """Every event that was committed, in the order of `seq`."""

    @abstractmethod
    async def pass_time(self, seconds: float) -> None:
        """Make it later, for leases and for what is due."""

    async def put(self, *events: tuple[str | None, str]) -> None:
        """Write events in a transaction of their own."""
        transaction = await self.begin()
        await transaction.put(*events)
        await transaction.commit()

    async def fetched(self) -> Sequence[OutboxMessage]:
        """Everything that is ready."""
        return sorted((await self.box.fetch(FROM_THE_BOTTOM, 1000)).messages, key=lambda m: m.seq)

    async def take_all(self, relay: str = ME) -> None:
        """Register a relay, and have it hold what it gets."""
        await self.box.register(relay, LEASE)
        await self.box.balance(relay)


def payloads(messages: Sequence[OutboxMessage]) -> list[str]:
    """What they carry."""
    return [message.payload.decode() for message in messages]


def line_of(key: str) -> Line:
    """The line of a key."""
    return Line(slot_of(key), "orders", key)


async def fail_the_first(
    harness: OrderedBoxHarness, *, delay: float = 30.0, spent: bool = True
) -> Landed:
    """The first message fails; those that are ready behind it are parked."""
    head, *rest = await harness.fetched()
    failure = Failure(head, "broken", "it broke", delay, spent=spent)
    landed = await harness.box.settle(ME, Settlement(retried=[failure], parked=rest))
    assert landed is not None
    return landed


class OrderedBoxConformance:
    """Slots, leases, reading, settling, lines that wait."""

    # Reading

    async def test_what_is_ready_is_read_above_the_marks_up_to_the_limit(
        self, harness: OrderedBoxHarness
    ) -> None:
        await harness.put(("a", "a1"), ("a", "a2"), ("a", "a3"))
        slot = slot_of("a")
        first = (await harness.box.fetch([(slot, 0)], 2)).messages
        assert payloads(first) == ["a1", "a2"]
        assert {(m.slot, m.line, m.key, m.topic) for m in first} == {
            (slot, line_of("a"), "a", "orders")
        }
        rest = (await harness.box.fetch([(slot, first[-1].seq)], 2)).messages
        assert payloads(rest) == ["a3"]
        assert not (await harness.box.fetch([((slot + 1) % SLOTS, 0)], 2)).messages

    async def test_slots_come_in_the_order_they_are_asked_for(
        self, harness: OrderedBoxHarness
    ) -> None:
        await harness.put(("a", "a1"), ("b", "b1"), ("a", "a2"), ("b", "b2"))
        for order in (["a", "b"], ["b", "a"]):
            asked = [(slot_of(key), 0) for key in order]
            found = payloads((await harness.box.fetch(asked, 3)).messages)
            assert found == [f"{order[0]}1", f"{order[0]}2", f"{order[1]}1"]

    async def test_no_more_of_each_slot_is_read_than_was_asked_for(
        self, harness: OrderedBoxHarness
    ) -> None:
        await harness.put(("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("b", "b2"))
        asked = [(slot_of(key), 0) for key in ("a", "b")]
        for each, limit, expected in [
            (2, 9, ["a1", "a2", "b1", "b2"]),
            (1, 9, ["a1", "b1"]),
            (2, 3, ["a1", "a2", "b1"]),
            (5, 2, ["a1", "a2"]),
        ]:
            fetched = await harness.box.fetch(asked, limit, each=each)
            assert payloads(fetched.messages) == expected

    async def test_what_is_not_committed_is_not_read_and_known_to_be_under_way(
        self, harness: OrderedBoxHarness
    ) -> None:
        late = await harness.begin()
        await late.put(("a", "a1"))
        await harness.put(("a", "a2"))
        during = await harness.box.fetch(FROM_THE_BOTTOM, 10)
        await late.commit()
        after = await harness.box.fetch(FROM_THE_BOTTOM, 10)
        assert payloads(during.messages) == ["a2"]
        assert payloads(after.messages) == ["a1", "a2"]
        assert during.snapshot.in_progress - after.snapshot.in_progress

    async def test_what_was_rolled_back_is_never_read(self, harness: OrderedBoxHarness) -> None:
        tx = await harness.begin()
        await tx.put(("a", "never"))
        during = await harness.box.fetch(FROM_THE_BOTTOM, 10)
        await tx.rollback()
        after = await harness.box.fetch(FROM_THE_BOTTOM, 10)
        assert not during.messages
        assert not after.messages
        assert during.snapshot.in_progress - after.snapshot.in_progress

    # Settling

    async def test_what_was_sent_is_not_read_again(self, harness: OrderedBoxHarness) -> None:
        await harness.take_all()
        await harness.put(("a", "a1"), (None, "n1"))
        sent = Settlement(sent=await harness.fetched())
        assert await harness.box.settle(ME, sent) == Landed()
        assert await harness.box.settle(ME, sent) == Landed(), "and again changes nothing"
        assert {state.status for state in await harness.states()} == {"SENT"}
        assert not await harness.fetched()

    async def test_a_lease_that_ran_out_settles_nothing(self, harness: OrderedBoxHarness) -> None:
        await harness.take_all()
        await harness.put(("a", "a1"), ("a", "a2"))
        first, second = await harness.fetched()
        await harness.pass_time(LEASE + 1)
        assert await harness.box.settle(ME, Settlement(sent=[first])) is None
        failed = Settlement(retried=[Failure(first, "x", "y", 1.0)], parked=[second])
        assert await harness.box.settle(ME, failed) is None
        assert [(s.status, s.parked) for s in await harness.states()] == [("PENDING", False)] * 2

    async def test_a_head_that_failed_holds_up_its_line_and_no_other(
        self, harness: OrderedBoxHarness
    ) -> None:
        await harness.take_all()
        await harness.put(("a", "a1"), ("a", "a2"))
        landed = await fail_the_first(harness)
        await harness.put(("b", "b1"))
        head, follower, other = await harness.states()
        assert (head.status, head.parked, head.retry_count) == ("FAILED", True, 1)
        assert head.error == "broken: it broke"
        assert head.waits is not None
        assert 0 < head.waits <= 30
        assert (follower.status, follower.parked, follower.retry_count) == ("PENDING", True, 0)
        assert (other.status, other.parked) == ("PENDING", False)
        assert landed.blocked.keys() == {line_of("a")}
        assert await harness.box.blocked(ALL) == {line_of("a")}
        assert await harness.box.blocked([(slot_of("a") + 1) % SLOTS]) == set()
        assert payloads(await harness.fetched()) == ["b1"]
        assert not await harness.box.due(ALL, 10)

    async def test_a_head_comes_alone_when_it_is_due_and_its_line_after_it(
        self, harness: OrderedBoxHarness
    ) -> None:
        await harness.take_all()
        await harness.put(("a", "a1"), ("a", "a2"), ("a", "a3"))
        await fail_the_first(harness)
        await harness.pass_time(31)
        head = await harness.box.due(ALL, 10)
        assert payloads(head) == ["a1"]
        landed = await harness.box.settle(ME, Settlement(sent=head, drained={line_of("a")}))
        assert landed is not None
        assert landed.blocked == {line_of("a"): 0.0}
        rest = await harness.box.due(ALL, 10)
        assert payloads(rest) == ["a2", "a3"]
        landed = await harness.box.settle(ME, Settlement(sent=rest, drained={line_of("a")}))
        assert landed == Landed({}, [line_of("a")])
        assert [(s.status, s.parked) for s in await harness.states()] == [("SENT", False)] * 3

    async def test_what_waits_by_our_own_fault_spends_no_retry(
        self, harness: OrderedBoxHarness
    ) -> None:
        await harness.take_all()
        await harness.put(("a", "a1"), ("a", "a2"))
        await fail_the_first(harness, spent=False)
        assert [state.retry_count for state in await harness.states()] == [0, 0]
        await harness.pass_time(31)
        assert payloads(await harness.box.due(ALL, 10)) == ["a1", "a2"]
        assert payloads(await harness.box.due(ALL, 1)) == ["a1"]

    async def test_a_dead_head_is_out_of_the_way(self, harness: OrderedBoxHarness) -> None:
        await harness.take_all()
        await harness.put(("a", "a1"), ("a", "a2"))
        head, follower = await harness.fetched()
        buried = Settlement(buried=[Failure(head, "no", "")], parked=[follower])
        landed = await harness.box.settle(ME, buried)
        assert landed is not None
        assert landed.blocked == {line_of("a"): 0.0}
        dead, _ = await harness.states()
        assert (dead.status, dead.parked, dead.error) == ("DEAD", False, "no")
        assert payloads(await harness.box.due(ALL, 10)) == ["a2"]

    async def test_a_dead_head_waits_for_an_operator_where_it_is_to(
        self, harness: OrderedBoxHarness
    ) -> None:
        box = harness.where_dead_block()
        await harness.take_all()
        await harness.put(("a", "a1"), ("a", "a2"), (None, "n1"))
        head, follower, free = await harness.fetched()
        buried = [Failure(head, "no", ""), Failure(free, "no", "")]
        landed = await box.settle(ME, Settlement(buried=buried, parked=[follower]))
        assert landed is not None
        assert landed.blocked == {line_of("a"): None}
        assert [(s.status, s.parked) for s in await harness.states()] == [
            ("DEAD", True), ("PENDING", True), ("DEAD", False),
        ]  # fmt: skip
        await harness.pass_time(3600 * 24)
        assert await box.blocked(ALL) == {line_of("a")}
        assert not await box.due(ALL, 10)

    async def test_a_message_without_a_key_is_retried_alone(
        self, harness: OrderedBoxHarness
    ) -> None:
        await harness.take_all()
        await harness.put((None, "n1"), (None, "n2"))
        first, second = await harness.fetched()
        failed = Settlement(sent=[second], retried=[Failure(first, "x", "y", 1.0)])
        assert await harness.box.settle(ME, failed) == Landed({}, [])
        assert await harness.box.blocked(ALL) == set()
        await harness.pass_time(2)
        assert payloads(await harness.box.due(ALL, 10)) == ["n1"]

    # Relays

    async def test_slots_are_shared_among_those_who_are_there(
        self, harness: OrderedBoxHarness
    ) -> None:
        await harness.box.register("one", LEASE)
        one = await harness.box.balance("one")
        assert one is not None
        assert (one.slots, one.share) == (frozenset(ALL), SLOTS)
        await harness.box.register("two", LEASE)
        two = await harness.box.balance("two")
        assert two is not None
        assert (two.slots, two.share) == (frozenset(), SLOTS // 2)
        given_up = set(range(10))
        await harness.box.release("one", given_up)
        two = await harness.box.balance("two")
        assert two is not None
        assert two.slots == given_up
        await harness.box.retire("one", clean=True)
        two = await harness.box.balance("two")
        assert two is not None
        assert (two.slots, two.unfenced) == (frozenset(ALL), frozenset())

    async def test_a_lease_lasts_as_long_as_it_is_extended_and_is_never_revived(
        self, harness: OrderedBoxHarness
    ) -> None:
        await harness.box.register("one", LEASE)
        keeper = harness.box.fence_keeper("one", LEASE)
        await harness.pass_time(LEASE * 2 / 3)
        assert keeper.beat()
        await harness.pass_time(LEASE * 2 / 3)
        assert await harness.box.balance("one") is not None
        await harness.pass_time(LEASE)
        assert not keeper.beat()
        assert await harness.box.balance("one") is None
        keeper.close()

    async def test_who_ended_without_a_word_leaves_its_slots_and_is_to_be_fenced(
        self, harness: OrderedBoxHarness
    ) -> None:
        await harness.take_all("one")
        await harness.pass_time(LEASE + 1)
        await harness.box.register("two", LEASE)
        two = await harness.box.balance("two")
        assert two is not None
        assert (two.slots, two.unfenced) == (frozenset(ALL), frozenset({"one"}))
        await harness.box.fenced(["one"])
        two = await harness.box.balance("two")
        assert two is not None
        assert two.unfenced == frozenset()
