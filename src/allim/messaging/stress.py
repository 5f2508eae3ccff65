"""A stress run: many jobs at once, and afterwards every single one is looked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from allim.database.pool import Database
from allim.database.statements import Statements
from allim.hub.status import DeliveryStatus
from allim.messaging.intake import Intake, Offer, job_key
from allim.messaging.job import MessageJob, make_job

SQL = Statements.load("allim.messaging", "stress.sql")

SOURCE = "stress"
STORED_AT_ONCE = 200
_ENDED = frozenset(DeliveryStatus) - {
    DeliveryStatus.PENDING,
    DeliveryStatus.PROCESSING,
    DeliveryStatus.FAILED,
}


def stress_jobs(count: int) -> Sequence[MessageJob]:
    """Jobs of a run of its own, to numbers that nobody has."""
    run = uuid4().hex[:10]
    return [
        make_job(
            to=f"0100000{number % 10_000:04}",
            text=f"스트레스 테스트 {number + 1}/{count}",
            job_id=f"stress-{run}-{number:06}",
            message_mode="sms",
        )
        for number in range(count)
    ]


async def store_jobs(intake: Intake, jobs: Sequence[MessageJob]) -> None:
    """Put jobs straight into the box, without a queue. Raises what the first refused one says."""
    for start in range(0, len(jobs), STORED_AT_ONCE):
        part = jobs[start : start + STORED_AT_ONCE]
        for result in await intake.store([Offer(job, source=SOURCE) for job in part]):
            if isinstance(result, Exception):
                raise result


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands. Latencies are seconds from the box to the provider, sorted."""

    count: int
    ended: int
    states: Counter[str]
    lost: Sequence[str]
    """Jobs that there is nothing of; only at the end does that mean that they were lost."""
    doubled: Sequence[str]
    latencies: Sequence[float]
    seconds: float
    """From the first that was stored to the last that was sent."""

    @property
    def per_second(self) -> float:
        """Messages a second."""
        return len(self.latencies) / self.seconds if self.seconds > 0 else 0.0

    def latency(self, share: float) -> float:
        """The latency that this share of the messages stayed within."""
        if not self.latencies:
            return 0.0
        return self.latencies[min(int(share * len(self.latencies)), len(self.latencies) - 1)]


async def standing(database: Database, jobs: Sequence[MessageJob]) -> Standing:
    """Look for every job of a run."""
    names = {job_key(job.job_id or ""): job.job_id or "" for job in jobs}
    rows = await database.fetch(SQL["jobs"], {"keys": list(names)})
    states: Counter[str] = Counter()
    lost, doubled, latencies = [], [], []
    first: datetime | None = None
    last: datetime | None = None
    ended = 0
    for key, notifications, found, times, created_at, sent_at in rows:
        known = [status for status in found or () if status is not None]
        states.update(known)
        ended += bool(known) and _ENDED.issuperset(known)
        if not notifications:
            lost.append(names[key])
        if notifications > 1 or times > 1:
            doubled.append(names[key])
        if created_at is not None:
            first = created_at if first is None else min(first, created_at)
        if sent_at is not None:
            last = sent_at if last is None else max(last, sent_at)
            latencies.append((sent_at - created_at).total_seconds())
    return Standing(
        count=len(jobs),
        ended=ended,
        states=states,
        lost=lost,
        doubled=doubled,
        latencies=sorted(latencies),
        seconds=(last - first).total_seconds() if first and last else 0.0,
    )
