"""The soak of `allim bench soak`, for seconds instead of minutes; and that it would notice."""

from __future__ import annotations

import random
from pathlib import Path

import psycopg
import pytest

from allim.base.ids import uuid7
from allim.bench import soak
from allim.bench.soak_load import TENANT, Callers
from allim.bench.stage import Stage, stage
from allim.bench.texting import TENANT as OPENING
from tests.requirements import needs_program


@pytest.mark.timeout(600)
def test_processes_killed_at_random_behind_a_pooler_lose_nothing() -> None:
    needs_program("pgbouncer")
    with stage() as set_up:
        figures = list(soak.run(set_up, seconds=12, every=1.5, rate=30))
    assert [each for each in figures if each.met is False] == []
    told = {each.name: each.value for each in figures}
    assert told["notifications that were accepted"] > 0
    assert told["database restarts"] == 1


URL = "http://127.0.0.1:9"


def test_a_soak_notices_what_is_lost_doubled_or_does_not_add_up(
    database_url: str, tmp_path: Path
) -> None:
    callers = Callers([], URL, random.Random(1))
    took: dict[str, int] = {}
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(OPENING.encode(), [TENANT])
        for number in (1, 2, 3, 4):
            identity = uuid7()
            callers.accepted[f"soak-{number}"] = str(identity)
            connection.execute(
                "WITH n AS (INSERT INTO notification (id, source, type, idempotency_key)"
                "     VALUES (%(id)s, 's', 't', %(key)s)),"
                " d AS (INSERT INTO delivery (notification_id, channel, recipient, max_attempts,"
                "                             status, attempts)"
                "     VALUES (%(id)s, 'WEBHOOK', %(url)s, 8, 'SUCCESS', 1) RETURNING id)"
                " INSERT INTO delivery_attempt (delivery_id, attempt_no, finished_at, outcome,"
                "                               http_status, worker)"
                " SELECT id, 1, now(), 'DELIVERED', 200, 'w' FROM d",
                {"id": identity, "key": f"soak-{number}", "url": f"{URL}/{number}"},
            )
            took[f"{URL}/{number}"] = 1
        place = Stage(database_url, tmp_path, {})

        def misses() -> dict[str, float]:
            found = soak.judged(place, callers, took)
            return {each.name: each.value for each in found if each.met is False}

        assert misses() == {}
        took[f"{URL}/1"] = 2
        del took[f"{URL}/2"]
        callers.accepted["soak-6"] = str(uuid7())
        connection.execute("UPDATE delivery SET status = 'DEAD' WHERE recipient LIKE '%/3'")
        connection.execute("UPDATE delivery SET attempts = 2 WHERE recipient LIKE '%/4'")
        connection.execute("UPDATE tenant SET balance = balance - 20")
        assert misses() == {
            "accepted, but not stored": 1,
            "deliveries too few or too many": 1,
            "deliveries that are not done": 1,
            "done, but never arrived": 1,
            "arrived twice, and nothing explains it": 1,
            "deliveries whose attempts do not add up": 1,
            "balance apart from the ledger": 20,
        }
