"""Finding out what changed: records as they are now against what is stored.

Nothing is locked for this. Records of a category are written by the holder of its lock alone, so
what was read stays true until the fence is checked; and every write names the revision it
was found at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import TupleRow
from pydantic_core import to_json

from allim.database.pool import Database
from allim.database.statements import Statements
from allim.enrolment import severity, wording
from allim.enrolment.model import AlertType, Severity, SourceType
from allim.enrolment.records import Record

SQL = Statements.load("allim.enrolment", "records.sql")


@dataclass(slots=True)
class Telling:
    """What an alert is going to say of one record."""

    alert_type: AlertType
    severity: Severity
    words: wording.Words
    old: bytes | None
    """The touched fields as they were, as JSON."""
    new: bytes | None


@dataclass(slots=True)
class Finding:
    """A record that is new, changed, gone or back: what is to be stored, and told."""

    source_type: SourceType
    source_id: str
    user_id: str
    user_name: str | None
    course_id: str | None
    course_name: str | None
    revision: int
    """The one that it gets."""
    telling: Telling
    row: bytes | None
    """The row to be stored, as JSON; None where the record is gone."""


async def find_changes(
    database: Database, records: Sequence[Record], source_type: SourceType
) -> list[Finding]:
    """What is new or changed among records of one type, each key of which stands there once."""
    if not records:
        return []
    rows = await database.run_pinned(
        SQL["differing"],
        {
            "source_type": source_type,
            "keys": [record.source_id for record in records],
            "hashes": [record.hash for record in records],
        },
    )
    return [_finding(records[row[0] - 1], row) for row in rows]


async def find_present(database: Database, *, category_id: int, course_id: str) -> list[str]:
    """The keys that are known of a course and not missing."""
    known = await database.run_pinned(
        SQL["present"], {"category_id": category_id, "course_id": course_id}
    )
    return [key for (key,) in known]


def missing_finding(row: TupleRow) -> Finding:
    """A record that was marked as missing, from what `mark_missing` returned."""
    key, user_id, user_name, course_id, course_name, revision, status, status_msg = row
    name = user_name or user_id
    return Finding(
        source_type=SourceType.STATUS,
        source_id=key,
        user_id=user_id,
        user_name=user_name,
        course_id=course_id,
        course_name=course_name,
        revision=revision,
        telling=Telling(
            AlertType.CHANGED,
            # An enrolment that is gone has no status any more.
            severity.of_change(("status",), status),
            wording.of_missing(name, course_name or course_id, status, status_msg),
            to_json({"missing": False, "status": status, "status_msg": status_msg}),
            to_json({"missing": True}),
        ),
        row=None,
    )


def _finding(record: Record, row: TupleRow) -> Finding:
    _, known, revision, missing, payload, status, status_msg, ds_date, gc_date, sjc_date = row
    if known:
        before = wording.Before(
            payload,
            status,
            status_msg,
            {"ds_date": ds_date, "gc_date": gc_date, "sjc_date": sjc_date},
        )
        telling = _change(record, before, missing)
    else:
        telling = _new(record)
    return Finding(
        source_type=record.source_type,
        source_id=record.source_id,
        user_id=record.user_id,
        user_name=record.user_name,
        course_id=record.course_id,
        course_name=record.course_name,
        revision=revision + 1,
        telling=telling,
        row=_row(record, revision + 1),
    )


def _new(record: Record) -> Telling:
    return Telling(
        AlertType.NEW,
        severity.of_new(
            record.status,
            paid_or_prepared=record.gc_date is not None or record.sjc_date is not None,
        ),
        wording.of_new(record),
        None,
        record.payload,
    )


def _change(record: Record, before: wording.Before, missing: bool) -> Telling:
    touched = list(wording.touched_fields(record.fields, before.fields))
    grave = [*touched]
    if record.status != before.status:
        grave.append("status")
    grave += [name for name, old in before.dates.items() if old != getattr(record, name)]
    old: dict[str, Any] = {name: before.fields[name] for name in touched if name in before.fields}
    new: dict[str, Any] = {name: record.fields[name] for name in touched if name in record.fields}
    if missing:
        old, new = {"missing": True, **old}, {"missing": False, **new}
        grave.append("status")
        words = wording.of_return(record, before, touched)
    else:
        words = wording.of_change(record, before, touched)
    return Telling(
        AlertType.CHANGED,
        severity.of_change(grave, record.status),
        words,
        to_json(old),
        to_json(new),
    )


def _row(record: Record, revision: int) -> bytes:
    row: dict[str, str | int | datetime | None] = {
        "source_type": record.source_type,
        "source_id": record.source_id,
        "course_id": record.course_id,
        "course_name": record.course_name,
        "user_id": record.user_id,
        "user_name": record.user_name,
        "status": record.status,
        "status_msg": record.status_msg,
        "ds_date": record.ds_date,
        "gc_date": record.gc_date,
        "sjc_date": record.sjc_date,
        "update_time": record.update_time,
        "hash": record.hash.hex(),
        "revision": revision,
    }
    # The payload is JSON already: it is put in as it is.
    return to_json(row)[:-1] + b',"payload":' + record.payload + b"}"
