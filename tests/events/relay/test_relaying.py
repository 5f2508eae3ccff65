"""What a relay of events promises, on a real database."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import pairwise

from allim.database.pool import Database
from allim.events.relaying.box import OutboxBox
from allim.events.relaying.message import OutboxMessage
from allim.events.slots import slot_of
from allim.relay.ordered.box import Fetched, Landed, Settlement
from allim.relay.ordered.message import Line
from allim.relay.ordered.relay import LANE
from allim.relay.outcomes import Outcome
from allim.relay.wake import WakeSignal
from tests.events.relay.conftest import REFUSED, RETRY, Outbox, World, put, relaying


def numbered(keys: int, each: int) -> list[tuple[str, str]]:
    """Events of several keys, in turn."""
    return [(f"k{key}", f"k{key}-{number:04}") for number in range(each) for key in range(keys)]


def in_order(world: World) -> bool:
    return all(all(a < b for a, b in pairwise(came)) for came in world.by_key().values())


async def test_messages_of_each_key_leave_in_order_once(
    database: Database, outbox: Outbox, world: World
) -> None:
    await outbox.put(*numbered(30, 20), *[(None, f"free-{n}") for n in range(20)])
    async with relaying(database, world):
        await outbox.until_all_are("SENT")
        await outbox.put(*[(f"k{key}", f"k{key}-9999") for key in range(30)])
        rows = await outbox.until_all_are("SENT")
    assert len(world.came) == len({m.id for m in world.came}) == len(rows) == 650
    assert all(came == sorted(came) for key, came in world.by_key().items() if key)
    assert {row["version"] for row in rows} == {1}
    assert not any(row["parked"] or row["retry_count"] for row in rows)


async def test_two_relays_share_the_slots_and_none_sends_what_the_other_has(
    database: Database, outbox: Outbox
) -> None:
    one, two = World(), World()
    async with relaying(database, one):
        await outbox.put(*numbered(64, 5))
        await outbox.until_all_are("SENT")
        assert len(one.came) == 320
        async with relaying(database, two):
            async with asyncio.timeout(30):
                while sorted(
                    count
                    for (count,) in await database.fetch(
                        "SELECT count(*) FROM relay_slot GROUP BY relay_id"
                    )
                ) != [32, 32]:
                    await asyncio.sleep(0.01)
            await outbox.put(*[(key, f"{key}-later-{n}") for n in range(5) for key, _ in
                               numbered(64, 1)])  # fmt: skip
            await outbox.until_all_are("SENT")
    assert len(one.came) + len(two.came) == 640
    assert two.came
    later = {m.key for m in one.came[320:]} & {m.key for m in two.came}
    assert not later, "a key has one relay at a time"
    rows = await database.fetch("SELECT count(*) FROM relay_slot WHERE relay_id IS NOT NULL")
    assert rows == [(0,)], "who stops gives its slots back"


async def test_a_failing_message_stops_its_own_key_only(
    database: Database, outbox: Outbox, world: World
) -> None:
    world.refuse("a1", RETRY, RETRY)
    await outbox.put(("a", "a1"), ("b", "b1"), ("a", "a2"), ("b", "b2"))
    async with relaying(database, world):
        await outbox.put(("a", "a3"), ("b", "b3"))
        rows = await outbox.until_all_are("SENT")
        await outbox.put(("a", "a4"))
        await outbox.until_all_are("SENT")
    assert world.by_key() == {"a": ["a1", "a2", "a3", "a4"], "b": ["b1", "b2", "b3"]}
    assert [row["retry_count"] for row in rows] == [2, 0, 0, 0, 0, 0]
    assert rows[0]["error_message"] == "broken: it broke"
    assert not any(row["parked"] or row["next_retry_at"] for row in rows)


async def test_what_follows_a_failed_message_waits_for_its_retry(
    database: Database, outbox: Outbox, world: World
) -> None:
    world.refuse("a1", RETRY)
    await outbox.put(("a", "a1"), ("a", "a2"))
    async with relaying(database, world, retry_after=3600.0):
        rows = await outbox.until(lambda rows: all(row["parked"] for row in rows))
        await outbox.put(("a", "a3"), ("b", "b1"))
        rows = await outbox.until(lambda rows: [r["parked"] for r in rows] == [1, 1, 1, 0])
    assert [row["status"] for row in rows[:3]] == ["FAILED", "PENDING", "PENDING"]
    assert world.by_key() == {"b": ["b1"]}

    # Another relay knows of it before it reads anything.
    await outbox.put(("a", "a4"))
    async with relaying(database, world):
        await outbox.until(lambda rows: rows[-1]["parked"])
        await database.fetch(
            "UPDATE outbox_messages SET next_retry_at = now() WHERE status = 'FAILED' RETURNING 1"
        )
        await outbox.until_all_are("SENT")
    assert world.by_key()["a"] == ["a1", "a2", "a3", "a4"]


async def all_heads_failed(database: Database) -> None:
    await database.fetch("UPDATE outbox_messages SET parked = true RETURNING 1")
    await database.fetch(
        "UPDATE outbox_messages SET status = 'FAILED', retry_count = 1, next_retry_at = now()"
        " WHERE seq IN (SELECT min(seq) FROM outbox_messages GROUP BY message_key) RETURNING 1"
    )


async def test_many_keys_that_are_due_are_retried_without_a_rest_in_between(
    database: Database, outbox: Outbox, world: World
) -> None:
    await outbox.put(*numbered(100, 2))
    await all_heads_failed(database)
    async with relaying(database, world, due_every=3600.0):
        await outbox.until_all_are("SENT")
    assert in_order(world)


async def test_followers_of_a_failed_head_take_no_room_from_other_keys(
    database: Database, outbox: Outbox
) -> None:
    await outbox.put(*numbered(4, 20))
    await all_heads_failed(database)
    due = await OutboxBox(database).due(range(64), 4)
    assert {message.payload.decode() for message in due} == {f"k{key}-0000" for key in range(4)}


async def test_a_message_that_fails_too_often_is_dead_and_its_key_goes_on(
    database: Database, outbox: Outbox, world: World
) -> None:
    world.refuse("a1", *[RETRY] * 99)
    world.refuse("c1", REFUSED)
    await outbox.put(("a", "a1"), ("a", "a2"), ("c", "c1"), ("c", "c2"), (None, "d1"))
    async with relaying(database, world, max_retries=2):
        rows = await outbox.until_all_are("SENT", "DEAD")
    assert [(row["text"], row["status"], row["retry_count"]) for row in rows] == [
        ("a1", "DEAD", 2),
        ("a2", "SENT", 0),
        ("c1", "DEAD", 0),
        ("c2", "SENT", 0),
        ("d1", "SENT", 0),
    ]
    assert sum("a1" in call for call in world.calls) == 3
    assert sum("c1" in call for call in world.calls) == 1
    assert not any(row["parked"] for row in rows)


async def test_a_dead_message_blocks_its_key_where_it_is_to(
    database: Database, outbox: Outbox, world: World
) -> None:
    world.refuse("a1", REFUSED)
    world.refuse("n1", REFUSED)
    await outbox.put(("a", "a1"), ("a", "a2"), (None, "n1"), ("b", "b1"))
    async with relaying(database, world, dead_blocks=True):
        rows = await outbox.until(
            lambda rows: (
                [r["status"] for r in rows] == ["DEAD", "PENDING", "DEAD", "SENT"]
                and rows[1]["parked"]
            )
        )
    assert [row["parked"] for row in rows] == [True, True, False, False]
    async with relaying(database, world, dead_blocks=True):
        await outbox.put(("a", "a3"))
        await outbox.until(lambda rows: rows[-1]["parked"])
    assert world.by_key() == {"b": ["b1"]}


async def test_a_message_without_a_key_fails_alone(
    database: Database, outbox: Outbox, world: World
) -> None:
    world.refuse("n1", RETRY)
    await outbox.put((None, "n1"), *[(None, f"n{number}") for number in range(2, 100)])
    async with relaying(database, world):
        rows = await outbox.until_all_are("SENT")
    assert [row["retry_count"] for row in rows] == [1] + [0] * 98
    assert len(world.came) == 99


async def test_a_broker_that_is_down_costs_no_retries(
    database: Database, outbox: Outbox, world: World
) -> None:
    world.down = True
    await outbox.put(*numbered(10, 10))
    async with relaying(database, world, batch=7):
        await world.until(lambda: len(world.calls) > 5)
        rows = await outbox.rows()
        assert {(r["status"], r["retry_count"], r["parked"]) for r in rows} == {
            ("PENDING", 0, False)
        }
        world.down = False
        rows = await outbox.until_all_are("SENT")
    assert {row["retry_count"] for row in rows} == {0}
    assert all(came == sorted(came) and len(came) == 10 for came in world.by_key().values())


async def test_one_broker_that_is_down_does_not_stop_another(
    database: Database, outbox: Outbox
) -> None:
    up, down = World("up"), World("down")
    down.down = True
    for number in range(40):
        await outbox.put(*[(f"k{key}", f"{number:03}") for key in range(5)], topic="down")
        await outbox.put(*[(f"k{key}", f"{number:03}") for key in range(5)], topic="up")
    async with relaying(database, up, down):
        await up.takes(200)
        down.down = False
        await outbox.until_all_are("SENT")
    for world in (up, down):
        assert len(world.came) == 200
        assert all(came == sorted(came) for came in world.by_key().values())


async def test_a_relay_that_loses_its_lease_drops_everything_and_starts_anew(
    database: Database, outbox: Outbox, world: World
) -> None:
    world.hold = asyncio.Event()
    await outbox.put(*numbered(5, 4))
    async with relaying(database, world):
        await world.until(lambda: bool(world.calls))
        await database.fetch(
            "WITH r AS (UPDATE relay SET retired = true RETURNING id)"
            " UPDATE relay_slot SET relay_id = NULL RETURNING 1"
        )
        await outbox.until_all_are("SENT")
    assert world.purged
    lives = await database.fetch("SELECT count(*) FROM relay")
    assert lives == [(2,)]
    # First occurrences are in order; what was in flight when the lease went came twice.
    for came in world.by_key().values():
        assert list(dict.fromkeys(came)) == sorted(set(came))
        assert len(set(came)) == 4


class SlowToTell(OutboxBox):
    """Tells late which lines of slots that were taken are blocked."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.asked = asyncio.Event()
        self.tell = asyncio.Event()
        self.settled = asyncio.Event()

    async def blocked(self, slots: Collection[int]) -> set[Line]:
        lines = await super().blocked(slots)
        if FAR in slots:
            self.asked.set()
            await self.tell.wait()
        return lines

    async def settle(self, relay: str, settlement: Settlement[OutboxMessage]) -> Landed | None:
        landed = await super().settle(relay, settlement)
        asyncio.get_running_loop().call_soon(self.settled.set)
        return landed


FAR = 40
"""A slot that another relay has at first."""


async def test_a_line_that_is_blocked_while_slots_are_taken_over_stays_blocked(
    database: Database, outbox: Outbox, world: World
) -> None:
    await database.fetch(
        "WITH other AS (INSERT INTO relay (id, lease_until) VALUES ('other', now() + interval '1h')"
        " RETURNING id) UPDATE relay_slot SET relay_id = other.id FROM other WHERE slot >= 32"
        " RETURNING 1"
    )
    key = next(key for key in map(str, range(1000)) if slot_of(key) < 32)
    box = SlowToTell(database)
    world.hold = asyncio.Event()
    world.refuse("head", Outcome.snooze("later", 3600.0))
    await outbox.put((key, "head"))
    async with relaying(database, world, box=box):
        await world.until(lambda: bool(world.calls))
        await database.fetch("UPDATE relay SET lease_until = now() WHERE id = 'other' RETURNING 1")
        await box.asked.wait()
        world.hold.set()
        await box.settled.wait()
        box.tell.set()
        await outbox.put((key, "follower"))
        rows = await outbox.until(lambda rows: rows[1]["parked"] or rows[1]["status"] == "SENT")
    assert [(row["status"], row["parked"]) for row in rows] == [("FAILED", True), ("PENDING", True)]
    assert not world.came


async def test_a_wake_brings_an_idle_relay_to_look(
    database: Database, outbox: Outbox, world: World
) -> None:
    signal = WakeSignal()
    async with relaying(database, world, signal=signal, poll_deaf=3600.0):
        await outbox.put(("a", "first"))
        signal.wake([LANE])
        await world.takes(1)
        for number in range(20):
            await outbox.put(("a", f"later-{number:02}"))
            signal.wake([LANE])
        await world.takes(21)
    assert world.by_key()["a"] == ["first", *(f"later-{number:02}" for number in range(20))]


async def test_a_rolled_back_transaction_publishes_nothing(
    database: Database, outbox: Outbox, world: World
) -> None:
    async with relaying(database, world):
        async with database.connection() as connection:
            await connection.execute("BEGIN")
            await put(connection, ("a", "never"))
            await outbox.put(("a", "a1"))
            await world.takes(1)
            await connection.execute("ROLLBACK")
        await outbox.put(("a", "a2"))
        await world.takes(2)
    assert world.by_key() == {"a": ["a1", "a2"]}


async def test_everything_works_where_a_session_keeps_nothing(
    database: Database, outbox: Outbox, world: World
) -> None:
    # What a transaction-mode pooler makes of a database; see tests/database/test_pooler.py.
    database.pooler = True
    world.refuse("k1-0003", RETRY)
    await outbox.put(*numbered(10, 10))
    async with relaying(database, world):
        rows = await outbox.until_all_are("SENT")
    assert sum(row["retry_count"] for row in rows) == 1
    assert all(came == sorted(came) and len(came) == 10 for came in world.by_key().values())


class Counting(OutboxBox):
    """Counts what is read of each topic."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.read: Counter[str] = Counter()

    async def fetch(
        self, marks: Sequence[tuple[int, int]], limit: int, *, each: int | None = None
    ) -> Fetched[OutboxMessage]:
        fetched = await super().fetch(marks, limit, each=each)
        self.read.update(message.topic for message in fetched.messages)
        return fetched


async def test_the_backlog_of_a_broker_that_is_down_is_not_read_again_and_again(
    database: Database, outbox: Outbox
) -> None:
    up, down = World("up"), World("down")
    down.down = True
    await outbox.put(*numbered(100, 20), topic="down")
    box = Counting(database)
    # Rescans and new tries all the time.
    async with relaying(database, up, down, box=box, rescan_every=0.05, batch_max=10):
        for turn in range(20):
            await outbox.put((f"k{turn}", f"{turn}"), topic="up")
            tries = len(down.calls)
            await up.takes(turn + 1)
            await down.until(lambda tries=tries: len(down.calls) > tries)  # type: ignore[misc]
        # All of it once, a batch for each try, and some again where transactions of others are
        # under way on this server; not all of it for each.
        assert box.read["down"] < 2000 * len(down.calls) / 4
        down.down = False
        rows = await outbox.until_all_are("SENT")
    assert len(rows) == len(up.came) + len(down.came) == 2020
    assert in_order(down)
    assert {row["retry_count"] for row in rows} == {0}


async def test_lines_that_wait_for_a_broker_that_is_down_keep_no_others_from_their_retry(
    database: Database, outbox: Outbox
) -> None:
    up, down = World("up"), World("down")
    down.down = True
    await outbox.put(*numbered(100, 1), topic="down")
    await outbox.put(*numbered(5, 1), topic="up")
    await all_heads_failed(database)
    await database.fetch(
        "UPDATE outbox_messages SET next_retry_at = now() - interval '1 hour'"
        " WHERE topic = 'down' RETURNING 1"
    )
    await database.fetch(
        "UPDATE outbox_messages SET status = 'FAILED', retry_count = 1, next_retry_at = now()"
        " WHERE topic = 'up' RETURNING 1"
    )
    async with relaying(database, up, down, pause=30.0, pause_max=30.0):
        await up.takes(5)
        down.down = False
    assert len(up.came) == 5


async def test_under_a_backlog_what_was_written_together_leaves_together(
    database: Database, outbox: Outbox, world: World
) -> None:
    await outbox.put(*numbered(1000, 4))
    async with relaying(database, world, batch=100, batch_max=100):
        await outbox.until_all_are("SENT")
    first = min(message.seq for message in world.came)
    half = [message.seq - first for message in world.came[:2000]]
    assert sum(half) / 2000 < 1500, "1000 in the order of the table, 2000 slot by slot"


async def test_the_backlog_of_a_few_keys_is_sent_in_full_turns(
    database: Database, outbox: Outbox, world: World
) -> None:
    await outbox.put(*numbered(1, 2000))
    async with relaying(database, world, batch=100, batch_max=100):
        await outbox.until_all_are("SENT")
    assert len(world.calls) < 60
    assert in_order(world)
