"""The commands and what they are called with."""

from __future__ import annotations

from typing import Annotated

import typer

from allim.cli import (
    benching,
    database,
    demo,
    doctor,
    enrolment,
    events,
    keys,
    messaging,
    programs,
    replaying,
    schedules,
    sending,
    stressing,
    templates,
    webpush,
)

EPILOG = """\
**Try it:** `allim up`, then open http://127.0.0.1:18080/console

Settings come from the environment and from `.env` in this directory. Without `DATABASE_URL`
Allim runs a PostgreSQL of its own under `ALLIM_HOME` (`./.allim`).
"""

RUN = "Run"
OPERATE = "Operate"
DATABASE = "Database"
TRY = "Try"

app = typer.Typer(
    name="allim",
    help="Gets messages out of a database and into the world without losing one.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"allim {version('allim')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and end.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    """Gets messages out of a database and into the world without losing one."""


app.command("up", rich_help_panel=RUN)(programs.up)
app.command("api", rich_help_panel=RUN)(programs.api)
app.command("relay", rich_help_panel=RUN)(programs.relay)
app.command("consume", rich_help_panel=RUN)(messaging.consume)
app.command("messaging-worker", rich_help_panel=RUN)(messaging.messaging_worker)
app.command("sync", rich_help_panel=OPERATE)(enrolment.sync)
app.add_typer(schedules.app, name="schedule", rich_help_panel=OPERATE)
app.command("send", rich_help_panel=OPERATE)(sending.send)
app.add_typer(replaying.app, name="replay", rich_help_panel=OPERATE)
app.add_typer(templates.app, name="template", rich_help_panel=OPERATE)
app.command("doctor", rich_help_panel=OPERATE)(doctor.doctor)
app.add_typer(events.app, name="events", rich_help_panel=OPERATE)
app.add_typer(events.keys_app, name="keys", rich_help_panel=OPERATE)
app.add_typer(keys.app, name="key", rich_help_panel=OPERATE)
app.add_typer(webpush.app, name="webpush", rich_help_panel=OPERATE)
app.command("trace", rich_help_panel=OPERATE)(messaging.trace)
app.add_typer(messaging.tenant, name="tenant", rich_help_panel=OPERATE)
app.add_typer(messaging.sqs, name="sqs", rich_help_panel=OPERATE)
app.command("demo", rich_help_panel=TRY)(demo.demo)
app.command("stress", rich_help_panel=TRY)(stressing.stress)
app.command("bench", rich_help_panel=TRY)(benching.bench)
app.command("migrate", rich_help_panel=DATABASE)(database.migrate)
app.add_typer(database.app, name="db", rich_help_panel=DATABASE)
