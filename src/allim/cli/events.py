"""`allim events …` and `allim keys …`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from allim.cli.moments import typed, when
from allim.cli.printing import echo, echo_json
from allim.cli.recording import on_record
from allim.cli.start import with_database

if TYPE_CHECKING:
    from allim.base.settings import Environment
    from allim.database.pool import Database
    from allim.events.views import EventSummary

app = typer.Typer(
    help="The event outbox: look into it, replay, discard.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
keys_app = typer.Typer(
    help="Encryption keys of the event outbox.", no_args_is_help=True, rich_markup_mode="markdown"
)

SESSION = "allim events"
Error = Annotated[
    str | None,
    typer.Option(help="Only those whose error begins so, up to its first colon: too_large."),
]


class Status(StrEnum):
    """Where an event is."""

    PENDING = "PENDING"
    SENT = "SENT"
    FAILED = "FAILED"
    DEAD = "DEAD"
    DISCARDED = "DISCARDED"


class Replayable(StrEnum):
    """What can be published again."""

    DEAD = "DEAD"
    FAILED = "FAILED"
    SENT = "SENT"
    DISCARDED = "DISCARDED"


@app.command("list")
def list_(
    topic: Annotated[str | None, typer.Option(help="Only this topic.")] = None,
    key: Annotated[str | None, typer.Option(help="Only this key.")] = None,
    status: Annotated[list[Status] | None, typer.Option(help="Only these statuses.")] = None,
    error: Error = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
) -> None:
    """List events, newest first.

    `allim events list --status DEAD --topic user-events`
    """
    from allim.events.reading import EventFilter, EventReader
    from allim.events.views import EventStatus

    wanted = EventFilter(
        topic=topic,
        key=key,
        error=error,
        status=[EventStatus(one.value) for one in status] if status else None,
    )

    async def show(database: Database, _: Environment) -> int:
        reader, cursor, shown = EventReader(database), None, 0
        while shown < limit:
            page = await reader.events(wanted, limit=min(limit - shown, 250), cursor=cursor)
            for event in page.items:
                echo(_line(event))
            shown += len(page.items)
            cursor = page.next
            if cursor is None:
                break
        return shown

    if not with_database(SESSION, show):
        echo("no such events", err=True)


@app.command()
def show(event_id: Annotated[UUID, typer.Argument(help="The event's id.")]) -> None:
    """Show one event with its payload, as JSON. Encrypted payloads stay so."""
    from allim.events.reading import EventReader

    view = with_database(SESSION, lambda database, _: EventReader(database).event(event_id))
    echo_json(view.model_dump_json(indent=2))


@app.command()
def blocked(
    topic: Annotated[str | None, typer.Option(help="Only this topic.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=250, help="How many at most.")] = 50,
) -> None:
    """List keys whose messages wait behind one that failed, and what it failed of."""
    from allim.events.reading import EventReader

    page = with_database(
        SESSION, lambda database, _: EventReader(database).blocked(topic=topic, limit=limit)
    )
    for one in page.items:
        due = one.next_retry_at
        until = f"retry {when(due)}" if due else "until replayed or discarded"
        echo(
            f"{one.topic}  {one.key}  {one.status} {one.event_id}  {one.waiting} behind it"
            f"  {until}  {_words(one.error_message)}"
        )
    if not page.items:
        echo("no key is blocked", err=True)
    elif page.next is not None:
        echo("there are more: raise --limit", err=True)


@app.command()
def replay(
    event_ids: Annotated[list[UUID] | None, typer.Argument(help="Events to send again.")] = None,
    topic: Annotated[str | None, typer.Option(help="All of this topic.")] = None,
    key: Annotated[str | None, typer.Option(help="All of this key.")] = None,
    status: Annotated[list[Replayable] | None, typer.Option(help="Which of those.  [DEAD]")] = None,
    error: Error = None,
    since: Annotated[
        str | None, typer.Option("--from", help="Published then or later: 2026-01-31T09:00+09:00.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Published before that.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many.")] = False,
) -> None:
    """Publish events again, under the same ids: by id, or all that fit the options.

    `allim events replay --topic user-events --from 2026-01-31T09:00+09:00`

    Keys keep their order among what is replayed. Failed events are tried at once. `--error` is
    what the console groups dead events by.
    """
    from allim.base.errors import ConfigurationError, NotFound
    from allim.database.wakes import wake_now
    from allim.database.waking import EVENTS
    from allim.events.relaying.operations import OutboxOperator, Selection

    filters = (topic, key, status, error, since, until)
    if bool(event_ids) == any(each is not None for each in filters):
        raise ConfigurationError("say which events: by their ids, or by options (see --help)")
    selection = Selection(
        statuses=[one.value for one in status or (Replayable.DEAD,)],
        topic=topic,
        key=key,
        error=error,
        since=typed(since),
        until=typed(until),
    )

    async def run(database: Database, _: Environment) -> int:
        operator = OutboxOperator(database)
        chosen = event_ids or await operator.chosen(selection)
        if dry_run:
            return len(chosen)
        replayed = await on_record(
            database,
            "event.replay",
            _subject(chosen),
            lambda: operator.replay(chosen),
            detail={"events": len(chosen), "topic": topic, "key": key, "error": error},
        )
        await wake_now(database, {EVENTS})
        return replayed

    done = with_database(SESSION, run)
    echo(f"{done} would be replayed" if dry_run else f"{done} will be published again")
    if done < len(event_ids or ()):
        few = len(event_ids or ()) - done
        raise NotFound("event_not_found", f"{few} wait already, or are not there")


@app.command()
def discard(
    event_ids: Annotated[list[UUID], typer.Argument(help="Events that are given up.")],
) -> None:
    """Give up on events that have not left; the keys that wait behind them go on."""
    from allim.base.errors import NotFound
    from allim.database.wakes import wake_now
    from allim.database.waking import EVENTS
    from allim.events.relaying.operations import OutboxOperator

    async def run(database: Database, _: Environment) -> int:
        discarded = await on_record(
            database,
            "event.discard",
            _subject(event_ids),
            lambda: OutboxOperator(database).discard(event_ids),
            detail={"events": len(event_ids)},
        )
        await wake_now(database, {EVENTS})
        return discarded

    done = with_database(SESSION, run)
    echo(f"discarded {done}")
    if done < len(event_ids):
        raise NotFound("event_not_found", f"{len(event_ids) - done} do not wait, or are not there")


@keys_app.command()
def rotate(
    finished: Annotated[
        bool, typer.Option("--all", help="Also what has left already or was discarded.")
    ] = False,
) -> None:
    """Seal every waiting payload anew, with the first key of EVENTS_ENCRYPTION_KEYS.

    Put the new key first, keep the old one behind it, restart producers and relays, then run
    this; it may be stopped and run again. After that the old key is needed only to replay
    what has left before, unless you say `--all`.
    """
    from allim.base.errors import AllimError
    from allim.events.encryption import Encryption
    from allim.events.rotation import Rotated, Rotation

    async def run(database: Database, environment: Environment) -> Rotated:
        rotation = Rotation(database, Encryption.of(environment).keys, finished=finished)
        return await on_record(database, "event.rotate_keys", "events", rotation.run)

    done = with_database(SESSION, run)
    echo(f"sealed {done.sealed} anew")
    if done.unreadable:
        shown = ", ".join(str(each) for each in done.unreadable[:10])
        raise AllimError(
            f"{len(done.unreadable)} do not decrypt with the key they name and were left as they"
            f" are: {shown}"
        )
    if done.left:
        raise AllimError(f"{done.left} were in use each time; run this again")


def _subject(chosen: Sequence[UUID]) -> str:
    return f"event {chosen[0]}" if len(chosen) == 1 else "events"


def _line(event: EventSummary) -> str:
    state = f"{event.status}{'*' if event.waiting else ''}"
    return (
        f"{event.id}  {when(event.created_at)}  {state:<10} {event.topic}  {event.key or '-'}"
        f"  {_words(event.error_message)}"
    ).rstrip()


def _words(text: str | None) -> str:
    return " ".join((text or "").split())[:120]
