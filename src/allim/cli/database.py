"""`allim migrate` and `allim db …`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from allim.base.errors import ConfigurationError, EmbeddedServerError
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
        typer.echo(f"applied {migration.number:04} {migration.name}")
    if not applied:
        typer.echo(f"nothing to do: the schema is at {migrations()[-1].number:04}")


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
        typer.echo(store.url)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def shell(context: typer.Context) -> None:
    """Open psql on the database; what follows is handed to psql.

    `allim db shell -- -c 'select count(*) from delivery'`
    """
    environment, _ = start(quiet=True)
    from allim.composition.opening import open_store

    with open_store(environment, migrated=False) as store:
        own = store.server.binaries / "psql" if store.server is not None else None
        program = str(own) if own is not None and own.exists() else shutil.which("psql")
        if program is None:
            raise ConfigurationError("psql is not on PATH: install a PostgreSQL client")
        # In the environment and not among the arguments, which everybody can read.
        ended = subprocess.run(
            [program, *context.args], env={**os.environ, **_connection(store.url)}, check=False
        )
    raise typer.Exit(ended.returncode)


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
        typer.echo("stopped")
    else:
        typer.echo(f"no embedded server was running in {home}")


def _connection(url: str) -> dict[str, str]:
    """The variables by which libpq finds a database."""
    from psycopg.conninfo import conninfo_to_dict

    names = {"dbname": "PGDATABASE", "user": "PGUSER", "password": "PGPASSWORD"}
    known = conninfo_to_dict(url)
    unsaid = set(known) - {"host", "port", "hostaddr", "sslmode", "options", *names}
    if unsaid:
        raise EmbeddedServerError(
            f"psql cannot be told {', '.join(sorted(unsaid))}: call it with DATABASE_URL yourself"
        )
    return {names.get(key, f"PG{key.upper()}"): str(value) for key, value in known.items()}
