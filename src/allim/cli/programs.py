"""`allim up`, `allim api`, `allim relay`: the programs that stay."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from allim.cli.start import run_program

Host = Annotated[
    str | None, typer.Option(help="Address to listen on.  [ALLIM_HOST, default 127.0.0.1]")
]
Port = Annotated[
    int | None, typer.Option(help="Port to listen on, 0 for a free one.  [ALLIM_PORT, 18080]")
]


class BoxName(StrEnum):
    """The boxes that a relay may empty."""

    DELIVERIES = "deliveries"
    EVENTS = "events"


def up(host: Host = None, port: Port = None) -> None:
    """Run everything in one process: API, scheduler, relays for every channel and for events.

    Stops gracefully on SIGTERM and Ctrl-C: claims no more, ends what is in flight.
    """
    from allim.composition.running import run_up

    run_program(run_up, _address(host, port))


def api(host: Host = None, port: Port = None) -> None:
    """Run the HTTP API alone. It accepts and stores; relays elsewhere deliver."""
    from allim.composition.running import run_api

    run_program(run_api, _address(host, port))


def relay(
    box: Annotated[BoxName | None, typer.Argument(help="What to take from.  [both]")] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            help="Deliver only this channel, and no events; may be given several times.  [all]"
        ),
    ] = None,
) -> None:
    """Run a relay alone: it sends deliveries and publishes events.

    Run as many as you like, anywhere; nothing but the database coordinates them.
    """
    from allim.composition.running import run_relay

    if channel and box is BoxName.EVENTS:
        raise typer.BadParameter("events go through no channel", param_hint="--channel")
    run_program(
        partial(
            run_relay,
            channels=channel or (),
            deliveries=box is not BoxName.EVENTS,
            events=box is not BoxName.DELIVERIES and not channel,
        )
    )


def _address(host: str | None, port: int | None) -> dict[str, str | None]:
    return {"ALLIM_HOST": host, "ALLIM_PORT": None if port is None else str(port)}
