"""`allim key …`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from allim.base.errors import NotFound
from allim.cli.printing import echo
from allim.cli.recording import on_record
from allim.cli.start import with_database

if TYPE_CHECKING:
    from allim.base.settings import Environment
    from allim.database.pool import Database

app = typer.Typer(help="API keys.", no_args_is_help=True, rich_markup_mode="markdown")

SESSION = "allim key"


class Scope(StrEnum):
    """What a key allows."""

    SEND = "send"
    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who will use it; letters and digits.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="What it allows; may be given several times.  [send and read]"),
    ] = None,
    tenant: Annotated[
        int | None, typer.Option(help="The one tenant that it may see.  [all]", min=1)
    ] = None,
) -> None:
    """Create a key and print its token, which is shown this once and stored as a hash.

    `allim key create shop --scope send`
    """
    from allim.web.access import AccessScope
    from allim.web.keys import create_key, keys_exist

    scopes = [AccessScope(one.value) for one in scope or (Scope.SEND, Scope.READ)]

    async def make(database: Database, environment: Environment) -> tuple[str, bool]:
        is_first = not await keys_exist(database, environment)
        detail = {"name": name, "scopes": [scope.value for scope in scopes], "tenant": tenant}
        made = await on_record(
            database,
            "key.create",
            f"key of {name}",
            lambda: create_key(database, name, scopes, tenant_id=tenant),
            detail=detail,
        )
        return made, is_first

    token, is_first = with_database(SESSION, make)
    echo(token)
    if is_first:
        echo("From now on every request needs a key:  Authorization: Bearer <token>", err=True)


@app.command("list")
def list_() -> None:
    """List the keys of the database, without their tokens."""
    from allim.web.keys import StoredKey, list_keys

    keys: Sequence[StoredKey] = with_database(SESSION, lambda database, _: list_keys(database))
    if not keys:
        echo("no keys: requests are answered without one, on loopback addresses only")
    for key in keys:
        state = f"revoked {key.revoked_at:%Y-%m-%d}" if key.revoked_at else "valid"
        tenant = f"tenant {key.tenant_id}" if key.tenant_id else "every tenant"
        echo(
            f"{key.id:>4}  {key.name:<24} {'+'.join(key.scopes):<24} {tenant:<14}"
            f" since {key.created_at:%Y-%m-%d}  {state}"
        )


@app.command()
def revoke(
    identity: Annotated[int, typer.Argument(help="The number of the key in `allim key list`.")],
) -> None:
    """Revoke a key; running processes notice within seconds."""
    from allim.web.keys import revoke_key

    async def end(database: Database) -> None:
        if not await revoke_key(database, identity):
            raise NotFound("key_not_found", f"there is no valid key {identity}")

    with_database(
        SESSION,
        lambda database, _: on_record(
            database, "key.revoke", f"key {identity}", lambda: end(database)
        ),
    )
    echo(f"revoked {identity}")
