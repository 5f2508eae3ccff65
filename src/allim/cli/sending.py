"""`allim send`: one notification from the shell."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Any

import typer

from allim.base.errors import InvalidRequest
from allim.base.settings import Environment
from allim.cli.printing import echo
from allim.cli.start import start


def send(
    channel: Annotated[str, typer.Argument(help="EMAIL, SLACK, WEBHOOK, LOG …")],
    recipient: Annotated[
        str | None, typer.Argument(help="To whom; the channel's default where left out.")
    ] = None,
    message: Annotated[str, typer.Option("--message", "-m", help="What to say.")] = "",
    title: Annotated[str | None, typer.Option("--title", "-t", help="Title or subject.")] = None,
    type_: Annotated[str, typer.Option("--type", help="What happened.")] = "MESSAGE",
    source: Annotated[str, typer.Option(help="The system that tells.")] = "shell",
) -> None:
    """Store one notification; whichever relay runs delivers it.

    `allim send EMAIL kim@example.com -t "Hello" -m "It works"`

    Prints the notification's id. Goes straight to the database: no API need be running.
    """
    environment, _ = start(quiet=True)
    from allim.composition.opening import open_store

    fields: dict[str, Any] = {
        "source": source,
        "type": type_,
        "title": title,
        "message": message or None,
        "deliveries": [
            {"channel": channel, **({"recipient": recipient} if recipient else {})},
        ],
    }
    with open_store(environment) as store:
        try:
            identity = asyncio.run(_store(store.url, environment, fields))
        except InvalidRequest as error:
            raise _as_typed(error) from None
    echo(identity)


def _as_typed(error: InvalidRequest) -> InvalidRequest:
    """The same with the names of arguments: nobody typed the JSON that places point into."""
    return InvalidRequest(
        [
            replace(problem, place=problem.place.rpartition("/")[2] or "request")
            for problem in error.problems
        ]
    )


async def _store(url: str, environment: Environment, fields: dict[str, Any]) -> str:
    from allim.composition.ways import open_channels
    from allim.database.pool import Database
    from allim.database.wakes import wake_now
    from allim.hub.service import Hub

    async with (
        Database(url, name="allim send", max_size=4) as database,
        open_channels(database, environment) as ways,
    ):
        async with database.transaction() as tx:
            created = await Hub(ways.channels).notify(tx, **fields)
        await wake_now(database, {delivery.channel for delivery in created.deliveries})
        return str(created.id)
