"""`allim migrate` and `allim db …`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from allim.base.errors import ConfigurationError, EmbeddedServerError
from allim.cli.printing import echo
from allim.cli.start import start

app = typer.Typer(
    help="The database: its URL, a shell in it, stopping the embedded one.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


def migrate(
    sql: Annotated[
        bool,
        typer.Option(
            "--sql",
            help="Print the SQL of the whole schema, for migrations of your own; change nothing.",
        ),
    ] = False,
) -> None:
    """Bring the database's schema up to this version of Allim.

    On the embedded database every command does this by itself.
    """
    environment, _ = start(quiet=True)
    from allim.composition.opening import naming, open_store
    from allim.database.migrate import migrate as apply
    from allim.database.migrate import migrations, schema_sql

    if sql:
        typer.echo(schema_sql(), nl=False)
        return
    with open_store(environment, migrated=False) as store, naming(store):
        applied = [*store.applied, *apply(store.url)]
    for migration in applied:
        echo(f"applied {migration.number:04} {migration.name}")
    if not applied:
        echo(f"nothing to do: the schema is at {migrations()[-1].number:04}")


@app.command()
def url() -> None:
    """Print the database's URL, and nothing else.

    Starts the embedded server where it must, and leaves it up until `allim db stop`, or
    until the last Allim process that came after ends.

    `psql "$(allim db url)"`
    """
    environment, _ = start(quiet=True)
    from allim.composition.opening import open_store

    with open_store(environment, migrated=False, leave_running=True) as store:
        echo(store.url)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def shell(context: typer.Context) -> None:
    """Open psql on the database; what follows is handed to psql.

    `allim db shell -- -c 'select count(*) from delivery'`
    """
    _run("psql", context.args)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def dump(context: typer.Context) -> None:
    """Write a dump to stdout, by the pg_dump that fits the server; what follows is handed to it.

    `allim db dump -- --clean --if-exists > allim.sql`
    """
    _run("pg_dump", ["--no-owner", *context.args])


@app.command()
def stop(
    force: Annotated[
        bool, typer.Option("--force", help="Even where Allim processes still use it.")
    ] = False,
) -> None:
    """Stop the embedded server."""
    environment, _ = start(quiet=True)
    from allim.composition.settings import DatabaseSettings
    from allim.database.embedded import EmbeddedServer, EmbeddedSettings

    if environment.read(DatabaseSettings).database_url is not None:
        raise ConfigurationError(
            "DATABASE_URL is set: that server is not Allim's to stop. Unset it to stop the"
            " embedded one"
        )
    home = Path(environment.read(EmbeddedSettings).allim_home)
    if EmbeddedServer.stop(home, even_if_used=force):
        echo("stopped")
    else:
        echo(f"no embedded server was running in {home}")


def _run(name: str, arguments: Sequence[str]) -> NoReturn:
    """Run a client program of PostgreSQL's on the database; of the embedded server its own."""
    environment, _ = start(quiet=True)
    from allim.composition.opening import open_store

    with open_store(environment, migrated=False) as store:
        own = store.server.binaries / name if store.server is not None else None
        program = str(own) if own is not None and own.exists() else shutil.which(name)
        if program is None:
            raise ConfigurationError(f"{name} is not on PATH: install a PostgreSQL client")
        # In the environment and not among the arguments, which everybody can read.
        ended = subprocess.run(
            [program, *arguments], env={**os.environ, **_connection(store.url)}, check=False
        )
    raise typer.Exit(ended.returncode)


def _connection(url: str) -> dict[str, str]:
    """The variables by which libpq finds a database."""
    from psycopg.conninfo import conninfo_to_dict

    names = {"dbname": "PGDATABASE", "user": "PGUSER", "password": "PGPASSWORD"}
    known = conninfo_to_dict(url)
    unsaid = set(known) - {"host", "port", "hostaddr", "sslmode", "options", *names}
    if unsaid:
        raise EmbeddedServerError(
            f"it cannot be told {', '.join(sorted(unsaid))}: call psql or pg_dump with DATABASE_URL"
            " yourself"
        )
    return {names.get(key, f"PG{key.upper()}"): str(value) for key, value in known.items()}
