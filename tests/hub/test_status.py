"""The computed status: the rules, and that SQL and Python follow the same ones."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allim.hub.status import DeliveryStatus, NotificationStatus, notification_status

D = DeliveryStatus
N = NotificationStatus


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([(D.PENDING, 0), (D.PENDING, 0)], N.PENDING),
        ([(D.PENDING, 1), (D.PENDING, 0)], N.PROCESSING),
        ([(D.PENDING, 0), (D.SUCCESS, 1)], N.PROCESSING),
        ([(D.FAILED, 1)], N.PROCESSING),
        ([(D.ACCEPTED, 1), (D.SUCCESS, 1)], N.PROCESSING),
        ([(D.HELD, 1), (D.DEAD, 1)], N.PROCESSING),
        ([(D.SUCCESS, 1), (D.SUCCESS, 2)], N.COMPLETED),
        ([(D.SUCCESS, 1), (D.SKIPPED, 1)], N.COMPLETED),
        ([(D.SUCCESS, 1), (D.DEAD, 8)], N.PARTIALLY_FAILED),
        ([(D.SUCCESS, 1), (D.CANCELED, 0)], N.PARTIALLY_FAILED),
        ([(D.SUCCESS, 1), (D.EXPIRED, 0)], N.PARTIALLY_FAILED),
        ([(D.DEAD, 1)], N.FAILED),
        ([(D.DEAD, 1), (D.SKIPPED, 1)], N.FAILED),
        ([(D.CANCELED, 0), (D.EXPIRED, 0)], N.FAILED),
        ([(D.SKIPPED, 1)], N.SKIPPED),
        ([(D.CANCELED, 0), (D.CANCELED, 1)], N.CANCELED),
        ([(D.EXPIRED, 0)], N.EXPIRED),
    ],
)
def test_the_first_rule_that_fits_decides(
    states: list[tuple[DeliveryStatus, int]], expected: NotificationStatus
) -> None:
    assert notification_status(states) is expected


def test_sql_and_python_agree(database_url: str) -> None:
    states = st.lists(st.tuples(st.sampled_from(DeliveryStatus), st.integers(0, 2)), max_size=6)
    with psycopg.connect(database_url, autocommit=True) as connection:

        @settings(max_examples=400, deadline=None)
        @given(states)
        def agree(deliveries: list[tuple[DeliveryStatus, int]]) -> None:
            row = connection.execute(
                "SELECT notification_status(coalesce(array_agg(DISTINCT s), '{}'),"
                " coalesce(bool_or(a > 0), false)) FROM unnest(%s::text[], %s::int[]) AS d (s, a)",
                [[s.value for s, _ in deliveries], [a for _, a in deliveries]],
            ).fetchone()
            assert row == (notification_status(deliveries).value,)

        agree()
