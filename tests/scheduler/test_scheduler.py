"""What fires, what is skipped, missed, taken over and given back."""

from __future__ import annotations

import asyncio

import psycopg

from allim.scheduler.cron import cron
from allim.scheduler.fires import FireLedger
from allim.scheduler.jobs import JobEnded
from allim.scheduler.model import ScheduleChange
from allim.scheduler.scheduler import Scheduler
from allim.scheduler.slots import due_slots
from tests.scheduler.conftest import Jobs, Stage, settled

MINUTES = 60.0


async def test_a_slot_fires_once_however_many_schedulers_there_are(stage: Stage) -> None:
    await stage.schedule(parameters={"category_id": 9})
    job = Jobs()
    many = [stage.scheduler(job, f"worker {number}") for number in range(5)]
    await asyncio.gather(*(scheduler.turn() for scheduler in many))
    assert job.calls == []

    await stage.turn_clock(10 * MINUTES)
    for _ in range(2):
        await asyncio.gather(*(scheduler.turn() for scheduler in many))
    for scheduler in many:
        await settled(scheduler)

    assert job.calls == [{"category_id": 9}]
    assert await stage.fires() == [("01:10", "SUCCESS", None)]
    (fire,) = (await stage.schedules.fires(1)).items
    assert (fire.run_id, fire.cause, fire.attempts) == (7, "slot", 1)
    assert fire.worker is not None
    assert fire.worker.startswith("worker")


async def test_of_missed_slots_the_latest_within_ten_minutes_fires(stage: Stage) -> None:
    await stage.schedule("*/3 * * * *")
    job = Jobs()
    scheduler = stage.scheduler(job)
    await stage.turn_clock(60 * MINUTES)

    await scheduler.turn()
    await settled(scheduler)

    assert await stage.fires() == [
        ("01:03", "MISSED", "no scheduler came to it in time (19 slots from here on)"),
        ("02:00", "SUCCESS", None),
    ]
    assert len(job.calls) == 1


async def test_a_slot_older_than_ten_minutes_is_missed_once_and_said(stage: Stage) -> None:
    await stage.schedule("0 3 * * *")
    job = Jobs()
    await stage.turn_clock(131 * MINUTES)

    for worker in "abab":
        await stage.scheduler(job, worker).turn()

    assert job.calls == []
    assert await stage.fires() == [
        ("03:00", "MISSED", "no scheduler came to it in time (1 slot from here on)")
    ]


async def test_what_is_made_or_resumed_begins_with_slots_to_come(stage: Stage) -> None:
    identity = await stage.schedule()
    await stage.schedules.change(identity, ScheduleChange(enabled=False))
    job = Jobs()
    scheduler = stage.scheduler(job)
    await stage.turn_clock(10 * MINUTES)
    await scheduler.turn()
    await stage.turn_clock(5 * MINUTES)
    await stage.schedules.change(identity, ScheduleChange(enabled=True))
    await scheduler.turn()
    assert await stage.fires() == []

    await stage.turn_clock(5 * MINUTES)
    await scheduler.turn()
    await settled(scheduler)
    assert await stage.fires() == [("01:20", "SUCCESS", None)]


async def test_a_slot_that_comes_while_the_job_runs_is_skipped(stage: Stage) -> None:
    await stage.schedule()
    job = Jobs(held=True)
    scheduler, other = stage.scheduler(job), stage.scheduler(job, "b")
    await stage.turn_clock(10 * MINUTES)
    await scheduler.turn()
    await job.began(1)
    assert await scheduler._ledger.renew(scheduler.running()[0].fire)

    await stage.database.fetch(
        "UPDATE schedule_fire SET lease_until = lease_until + interval '1 hour' RETURNING id"
    )
    await stage.turn_clock(10 * MINUTES)
    await other.turn()
    job.ends.set()
    await settled(scheduler)

    assert len(job.calls) == 1
    assert await stage.fires() == [
        ("01:10", "SUCCESS", None),
        ("01:20", "SKIPPED", "still running: what was due at 2026-11-21 01:10:00+0000, by a"),
    ]


async def test_who_decides_on_old_knowledge_decides_nothing(stage: Stage) -> None:
    identity = await stage.schedule("*/10 * * * *")
    sleeper = FireLedger(stage.database, "sleeper")
    await stage.turn_clock(10 * MINUTES)
    now, (armed,) = await sleeper.read()
    due = due_slots(cron(armed.cron, "UTC"), decided_until=armed.decided_until, now=now)
    job = Jobs()
    other = stage.scheduler(job, "other")
    for _ in range(2):
        await other.turn()
        await settled(other)
        await stage.turn_clock(10 * MINUTES)
    assert len(job.calls) == 2

    assert await sleeper.claim(armed, due, now) is None
    assert (await sleeper.read())[1][0].decided_until == now.replace(minute=20, second=0)

    now, (armed,) = await sleeper.read()
    due = due_slots(cron(armed.cron, "UTC"), decided_until=armed.decided_until, now=now)
    await stage.schedules.change(identity, ScheduleChange(enabled=False))
    assert await sleeper.claim(armed, due, now) is None
    assert len(await stage.fires()) == 2


async def test_a_failure_is_on_record_and_the_next_slot_fires(stage: Stage) -> None:
    await stage.schedule()
    job = Jobs()
    scheduler = stage.scheduler(job)
    for outcome in (
        JobEnded(run_id=3, error="upstream HTTP 409 from kvca"),
        JobEnded(run_id=4, error="job_lock active (run 3)", busy=True),
        RuntimeError("a bug with a secret"),
        JobEnded(run_id=5),
    ):
        job.outcome = outcome
        await stage.turn_clock(10 * MINUTES)
        await scheduler.turn()
        await settled(scheduler)

    assert await stage.fires() == [
        ("01:10", "FAILED", "upstream HTTP 409 from kvca"),
        ("01:20", "FAILED", "job_lock active (run 3)"),
        ("01:30", "FAILED", "unexpected error: RuntimeError; the log says more"),
        ("01:40", "SUCCESS", None),
    ]


async def test_what_a_dead_process_had_under_way_is_taken_over(stage: Stage) -> None:
    await stage.schedule()
    job = Jobs(held=True)
    dead, heir = stage.scheduler(job, "dead"), stage.scheduler(job, "heir")
    await stage.turn_clock(10 * MINUTES)
    await dead.turn()
    await job.began(1)
    await _kill(dead)
    await heir.turn()
    assert len(job.calls) == 1, "its lease still holds"

    await stage.turn_clock(61)
    # The run that died still holds the sync's own lock.
    job.outcome = JobEnded(error="job_lock active (run 1)", busy=True)
    job.ends.set()
    for _ in range(4):
        await heir.turn()
        await settled(heir)
        assert await stage.fires() == [("01:10", "RUNNING", "job_lock active (run 1)")]
        await stage.turn_clock(61)

    job.outcome = JobEnded(run_id=2)
    await heir.turn()
    await settled(heir)
    assert await stage.fires() == [("01:10", "SUCCESS", None)]
    assert len(job.calls) == 6
    (fire,) = (await stage.schedules.fires(1)).items
    assert fire.attempts == 2, "what was refused was no attempt"


async def test_what_cannot_be_taken_over_in_ten_minutes_failed(stage: Stage) -> None:
    await stage.schedule("0 * * * *")
    job = Jobs(held=True)
    dead, heir = stage.scheduler(job, "dead"), stage.scheduler(job, "heir")
    await stage.turn_clock(60 * MINUTES)
    await dead.turn()
    await job.began(1)
    await _kill(dead)

    await stage.turn_clock(11 * MINUTES)
    await heir.turn()

    ((due, status, error),) = await stage.fires()
    assert (due, status) == ("02:00", "FAILED")
    assert error is not None
    assert "its process ended while it ran" in error
    assert len(job.calls) == 1


async def test_a_fire_that_ends_its_process_again_and_again_is_given_up(stage: Stage) -> None:
    await stage.schedule("0 * * * *")
    job = Jobs(held=True)
    await stage.turn_clock(60 * MINUTES)
    for number in range(1, 6):
        scheduler = stage.scheduler(job, f"{number}")
        await scheduler.turn()
        await job.began(min(number, 3))
        await _kill(scheduler)
        await stage.turn_clock(61)

    assert len(job.calls) == 3
    assert await stage.fires() == [("02:00", "FAILED", "its process ended 3 times while it ran")]


async def test_one_that_was_taken_over_records_nothing_more(stage: Stage) -> None:
    await stage.schedule()
    first, second = Jobs(held=True), Jobs()
    frozen, heir = stage.scheduler(first, "frozen"), stage.scheduler(second, "heir")
    await stage.turn_clock(10 * MINUTES)
    await frozen.turn()
    await first.began(1)
    await stage.turn_clock(61)
    await heir.turn()
    await settled(heir)

    first.outcome = JobEnded(error="woken too late")
    first.ends.set()
    await settled(frozen)

    assert await stage.fires() == [("01:10", "SUCCESS", None)]
    (fire,) = (await stage.schedules.fires(1)).items
    assert (fire.worker, fire.attempts) == ("heir", 2)


async def test_a_stop_waits_then_interrupts_and_the_next_process_takes_over(stage: Stage) -> None:
    await stage.schedule()
    job = Jobs(held=True)
    scheduler = stage.scheduler(job, grace=0.05, interrupt=60)
    await stage.turn_clock(10 * MINUTES)
    running = asyncio.create_task(scheduler.run())
    await job.began(1)

    scheduler.stop()
    async with asyncio.timeout(60):
        await running

    assert job.canceled == 1
    interrupted = "interrupted: the scheduler was stopped"
    assert await stage.fires() == [("01:10", "RUNNING", interrupted)]
    job.ends.set()
    heir = stage.scheduler(job, "heir")
    await heir.turn()
    await settled(heir)
    assert await stage.fires() == [("01:10", "SUCCESS", None)]


async def test_a_stop_lets_a_job_end_that_does(stage: Stage) -> None:
    await stage.schedule()
    job = Jobs(held=True)
    scheduler = stage.scheduler(job, grace=60)
    await stage.turn_clock(10 * MINUTES)
    running = asyncio.create_task(scheduler.run())
    await job.began(1)

    scheduler.stop()
    job.ends.set()
    async with asyncio.timeout(60):
        await running

    assert job.canceled == 0
    assert await stage.fires() == [("01:10", "SUCCESS", None)]


async def test_asking_runs_it_now_even_when_paused_but_not_twice(stage: Stage) -> None:
    identity = await stage.schedule(enabled=False)
    job = Jobs()
    asked = await stage.schedules.fire(identity)
    assert asked.status == "QUEUED"
    scheduler = stage.scheduler(job)
    await scheduler.turn()
    await settled(scheduler)

    (fire,) = (await stage.schedules.fires(identity)).items
    assert (fire.id, fire.status, fire.cause) == (asked.id, "SUCCESS", "request")


async def test_what_nobody_comes_to_in_ten_minutes_is_not_run_later(stage: Stage) -> None:
    identity = await stage.schedule("0 3 * * *")
    await stage.schedules.fire(identity)
    await stage.turn_clock(11 * MINUTES)
    job = Jobs()
    await stage.scheduler(job).turn()
    assert job.calls == []
    assert await stage.fires() == [
        ("01:00", "MISSED", "no scheduler came to it within ten minutes")
    ]


async def test_a_full_process_leaves_what_is_due_to_others(stage: Stage) -> None:
    for number in range(3):
        await stage.schedule(name=f"s{number}")
    job = Jobs(held=True)
    full, other = stage.scheduler(job, "full", jobs=2), stage.scheduler(job, "other", jobs=2)
    await stage.turn_clock(10 * MINUTES)
    await full.turn()
    await job.began(2)
    await full.turn()
    assert len(full.running()) == 2

    await other.turn()
    await job.began(3)
    job.ends.set()
    await settled(full)
    await settled(other)
    assert [status for _, status, _ in await stage.fires()] == ["SUCCESS"] * 3


async def test_jobs_and_times_that_this_version_does_not_know_harm_nothing(stage: Stage) -> None:
    first = await stage.schedule(name="first")
    second = await stage.schedule(name="second")
    await stage.schedule(name="third")
    await stage.database.fetch(
        "UPDATE schedule SET job = 'newer' WHERE id = %(id)s RETURNING id", {"id": first}
    )
    await stage.database.fetch(
        "UPDATE schedule SET timezone = 'Mars/Olympus' WHERE id = %(id)s RETURNING id",
        {"id": second},
    )
    job = Jobs()
    scheduler = stage.scheduler(job)
    await stage.turn_clock(10 * MINUTES)
    await scheduler.turn()
    await settled(scheduler)
    assert len(job.calls) == 1
    assert len((await stage.schedules.list()).items) == 3


async def test_old_fires_are_forgotten_but_never_the_newest(stage: Stage) -> None:
    identity = await stage.schedule("0 0 1 1 *")
    await stage.database.fetch(
        "INSERT INTO schedule_fire (schedule_id, due_at, cause, status, finished_at)"
        " SELECT %(id)s, at - n * interval '1 day', 'slot', 'SUCCESS', at"
        "   FROM fake.clock, generate_series(40, 1500) AS n RETURNING id",
        {"id": identity},
    )
    scheduler = stage.scheduler(Jobs())
    for _ in range(3):
        await scheduler.turn()
    assert len(await stage.fires()) == 1
    assert (await stage.schedules.one(identity)).last_fire is not None


async def test_a_database_that_goes_away_is_waited_for(
    stage: Stage, database_url: str, template_url: str
) -> None:
    await stage.schedule()
    job = Jobs()
    scheduler = stage.scheduler(job, poll=0.01, longest_pause=0.05)
    running = asyncio.create_task(scheduler.run())
    name = database_url.split("?")[0].rsplit("/", 1)[1]
    with psycopg.connect(template_url, autocommit=True) as outside:
        outside.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        outside.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        assert not running.done()
        outside.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    with psycopg.connect(database_url, autocommit=True) as outside:
        outside.execute("UPDATE fake.clock SET at = at + interval '10 minutes'")
    await job.began(1)
    scheduler.stop()
    async with asyncio.timeout(60):
        await running
    assert await stage.fires() == [("01:10", "SUCCESS", None)]


async def _kill(scheduler: Scheduler) -> None:
    """What a process leaves that is killed: nothing is cleaned up, nothing recorded."""
    for task in list(scheduler._running):
        task.cancel()
        await asyncio.wait([task])
