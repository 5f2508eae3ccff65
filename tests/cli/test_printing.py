"""What commands print of others' words."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

import allim.cli
from allim.cli.printing import echo_json
from allim.cli.tracing import print_trace
from allim.events import RawEvent
from allim.events.encryption import Encryption, KeyRing
from allim.events.publishing import Publisher
from allim.messaging.tracing import RefusedJob, TraceView
from tests.programs import allim as run

EVIL = "\x1b]0;owned\x07\x1b[2J\r\u202ekey"
SPELT = r"\x1b]0;owned\x07\x1b[2J\r\u202ekey"


async def test_an_event_cannot_command_the_terminal_that_lists_it(
    database_url: str, tmp_path: Path
) -> None:
    event = RawEvent(topic="orders", key=EVIL, payload=b"{}", content_type="application/json")
    with psycopg.connect(database_url) as tx:
        Publisher(Encryption(KeyRing())).publish(tx, event)
        tx.execute("UPDATE outbox_messages SET status = 'DEAD', error_message = %s", [EVIL])

    listed = await run("events", "list", cwd=tmp_path, DATABASE_URL=database_url)
    assert SPELT in listed.out
    assert "\x1b" not in listed.out
    assert len(listed.out.splitlines()) == 1
    shown = await run(
        "events", "show", str(event.event_id), cwd=tmp_path, DATABASE_URL=database_url
    )
    assert "\u202e" not in shown.out
    assert json.loads(shown.out)["key"] == EVIL


def test_a_trace_cannot_command_the_terminal() -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    job = RefusedJob(
        message_id="m",
        job_id=EVIL,
        tenant_id=None,
        reason=EVIL,
        receives=1,
        created_at=now,
        updated_at=now,
    )
    stream = io.StringIO()
    view = TraceView(recipient=EVIL, deliveries=[], refused_jobs=[job], suppressions=[])
    print_trace(view, Console(file=stream, highlight=False, soft_wrap=True))

    assert stream.getvalue().count(SPELT) == 3
    assert set(stream.getvalue()).isdisjoint("\x1b\x07\r\u202e")


async def test_an_error_cannot_either(database_url: str, tmp_path: Path) -> None:
    ended = await run(
        "events", "list", cwd=tmp_path, DATABASE_URL=database_url, **{"ALLIM_\x1b[2J": "1"}
    )
    assert (ended.code, "\x1b" in ended.err, r"\x1b[2J" in ended.err) == (2, False, True)


def test_json_stays_the_very_value(capsys: pytest.CaptureFixture[str]) -> None:
    echo_json(json.dumps({"a": EVIL + "\x9b"}, ensure_ascii=False, indent=2))
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"a": EVIL + "\x9b"}
    assert set(printed).isdisjoint("\x1b\x9b\u202e")


def test_commands_print_by_no_other_way() -> None:
    ours = {"printing.py", "commands.py", "database.py"}  # The version and the schema are our own.
    for file in Path(allim.cli.__file__).parent.glob("*.py"):
        assert file.name in ours or "typer.echo(" not in file.read_text(), file
