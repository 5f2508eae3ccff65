"""The page of tables and views: what a migrated database holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg

from allim.database.migrate import migrations
from scripts.reference.page import GENERATED, cell

FOR_OPERATORS = (
    "notification",
    "delivery",
    "delivery_attempt",
    "outbox_messages",
    "outbox_message_headers",
    "sheet_outbox",
    "notification_outbox",
    "run_log",
    "alert",
    "source_record",
    "job_lock",
    "tenant",
    "tenant_ledger",
    "suppression",
    "schedule",
    "schedule_fire",
    "replay_job",
    "audit_log",
)
"""What people look into, in the order in which they mostly do. The rest follows by name."""

PURPOSES = {
    "alert": "What the sync told, old → new; `notification_id` leads to what became of it.",
    "api_key": "Keys, as hashes.",
    "audit_log": "What people did, with who and when. Never changed, never deleted by Allim.",
    "delivery": "One message to one recipient on one channel; where it stands.",
    "delivery_attempt": "One row a try, opened before the call. An end that is empty: under way,"
    " or cut short.",
    "doubted_course": "Courses that lost almost everybody at once; believed when told twice.",
    "endpoint": "Targets that said they are gone (410), and webhooks' own signing secrets.",
    "inbox": "Events that a consumer has taken in.",
    "job_lock": "Who runs a job now, until when.",
    "notification": "What was asked for. No status here: it is computed when read.",
    "outbox_messages": "Events, in the order of each slot.",
    "outbox_message_headers": "One row a header of an event.",
    "rate_limit": "When the next free place in a target's line is.",
    "relay": "Incarnations of relays of events, and their leases.",
    "relay_slot": "Which of them holds each of the 64 slots.",
    "replay_job": "Replays of dead letters, and how far each is.",
    "run_log": "Runs of the sync.",
    "schedule": "What runs when.",
    "schedule_fire": "Every time that a schedule fired.",
    "schema_migration": "Which migrations were applied.",
    "source_record": "The last that the sync saw of each enrolment and user.",
    "suppression": "Who must not be written to.",
    "tenant": "Tenants and their balances.",
    "tenant_ledger": "Every movement of money; their sum is the balance.",
}

COLUMNS = """
SELECT class.relname, class.relkind = 'v', obj_description(class.oid, 'pg_class'),
       attribute.attname, format_type(attribute.atttypid, attribute.atttypmod),
       attribute.attnotnull, pg_get_expr(value.adbin, value.adrelid),
       col_description(class.oid, attribute.attnum)
  FROM pg_class AS class
  JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
  JOIN pg_attribute AS attribute
       ON attribute.attrelid = class.oid AND attribute.attnum > 0 AND NOT attribute.attisdropped
  LEFT JOIN pg_attrdef AS value
       ON value.adrelid = class.oid AND value.adnum = attribute.attnum
 WHERE namespace.nspname = 'public' AND class.relkind IN ('r', 'v', 'p')
   AND NOT class.relispartition
 ORDER BY class.relname, attribute.attnum
"""
CHECKS = """
SELECT class.relname, pg_get_constraintdef(constraint_.oid)
  FROM pg_constraint AS constraint_ JOIN pg_class AS class ON class.oid = constraint_.conrelid
 WHERE constraint_.contype = 'c'
 ORDER BY class.relname, constraint_.conname
"""
_ONE_OF = re.compile(r"^CHECK \(\(\(?(\w+)\)?(?:::\w+)? = ANY \(.*ARRAY\[(.*)\]")
_VALUE = re.compile(r"'([^']*)'")
_ABOVE = re.compile(r"((?:^--.*\n)+)CREATE (?:TABLE|VIEW) (\w+)", re.MULTILINE)


def database_page(url: str) -> str:
    """Every table and view of the migrated database at `url`."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(COLUMNS).fetchall()
        allowed = _allowed(connection.execute(CHECKS).fetchall())
    tables: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        tables.setdefault(row[0], []).append(row)
    purposes = {**_comments(), **PURPOSES}
    first = [name for name in FOR_OPERATORS if name in tables]
    lines = [
        "# Tables and views\n",
        GENERATED,
        "All that Allim keeps is in these, in the schema that the role's `search_path` begins with."
        " Read whatever you like (`allim db shell`); names of the first group are meant to stay."
        " Write through the API and the commands only: they keep what hangs together together."
        " Times are `timestamptz` of the database's clock, money is whole KRW, and every table has"
        " `created_at` and `updated_at`.\n",
        "## For operators\n",
    ]
    for name in first:
        lines += _table(name, tables[name], purposes, allowed)
    lines += ["## Inner works\n", "These may change with any version.\n"]
    for name in sorted(set(tables) - set(first)):
        lines += _table(name, tables[name], purposes, allowed)
    return "\n".join(lines)


def _table(
    name: str,
    columns: Sequence[tuple[Any, ...]],
    purposes: Mapping[str, str],
    allowed: Mapping[tuple[str, str], str],
) -> Iterator[str]:
    view, comment = columns[0][1], columns[0][2]
    yield f"### {name}\n"
    words = " ".join(filter(None, ["A view." if view else "", purposes.get(name) or comment or ""]))
    if words:
        yield f"{cell(words)}\n"
    yield "| column | type | |"
    yield "| --- | --- | --- |"
    for _, _, _, column, kind, required, default, told in columns:
        notes = [cell(told)] if told else []
        notes += [one] if (one := allowed.get((name, column))) else []
        if not view:
            notes += [] if required else ["may be null"]
            if default and len(default) < 40 and "nextval" not in default:
                notes.append(f"default `{cell(default)}`")
        yield f"| `{column}` | {kind} | {'; '.join(notes)} |"
    yield ""


def _allowed(checks: Sequence[tuple[Any, ...]]) -> Mapping[tuple[str, str], str]:
    found = {}
    for table, definition in checks:
        if match := _ONE_OF.match(definition):
            found[table, match[1]] = ", ".join(f"`{v}`" for v in _VALUE.findall(match[2]))
    return found


def _comments() -> Mapping[str, str]:
    """What stands right above a table's own lines in the migrations."""
    return {
        name: " ".join(line.removeprefix("--").strip() for line in words.splitlines())
        for migration in migrations()
        for words, name in _ABOVE.findall(migration.sql)
    }
