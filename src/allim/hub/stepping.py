"""Listings that no index can answer: read in steps, within bounds of rows and of time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

from allim.database.pool import Database

FIRST = 500
LARGEST = 4_000
MOST = 50_000
"""Rows that one request looks at before it gives back a short page."""
SECONDS = 0.12
"""After this long no further step begins: what is rare is looked for page by page."""


@dataclass(frozen=True, slots=True)
class Found:
    """What fitted, newest first; `go_on` is where to look on when the bounds cut it short."""

    items: list[Any]
    go_on: Any | None


async def read_in_steps(
    database: Database,
    statement: LiteralString,
    parameters: Mapping[str, Any],
    *,
    before: Any,
    limit: int,
    judged: bool,
) -> Found:
    """Up to `limit` items that are older than `before`.

    `statement` takes ``before``, ``scan`` and ``limit``; its first row tells how many rows it
    looked at and the last of them, the others end with an item. Where nothing is `judged` row by
    row, one step of `limit` rows finds them all.
    """
    items: list[Any] = []
    scan = max(FIRST, limit) if judged else limit
    scanned = 0
    until = time.monotonic() + SECONDS
    while True:
        (looked_at, last, _), *found = await database.fetch(
            statement,
            {**parameters, "before": before, "scan": scan, "limit": limit - len(items)},
        )
        items += [row[2] for row in found]
        scanned += looked_at
        if len(items) >= limit or looked_at < scan:
            return Found(items, None)
        if scanned >= MOST or not judged or time.monotonic() > until:
            return Found(items, last)
        before = last
        scan = min(scan * 2, LARGEST, MOST - scanned)
