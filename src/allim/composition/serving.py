"""The API of a program: a socket of our own, and uvicorn on it."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from allim.app import create_app
from allim.base.errors import ConfigurationError
from allim.composition.delivering import make_passes
from allim.composition.foundation import Foundation
from allim.composition.parts import Part
from allim.composition.scheduling import LANE
from allim.enrolment.calls import SyncCalls
from allim.enrolment.sync import EnrolmentSync
from allim.web.access import refuse_open_bind
from allim.web.keys import keys_exist
from allim.web.settings import AccessSettings

log = logging.getLogger("allim")

BACKLOG = 2048
GRACE_SECONDS = 10


async def serving(base: Foundation, sync: EnrolmentSync | None) -> Part:
    """The API, its port taken.

    Raises ConfigurationError where others could reach it without a key, or the port is taken.
    """
    settings = base.environment.read(AccessSettings)
    refuse_open_bind(settings.allim_host, await keys_exist(base.database, base.environment))
    sync_calls = SyncCalls(sync)
    app = create_app(
        base.database,
        base.channels,
        base.environment,
        on_commit=base.wakes,
        registry=base.watch.registry,
        endpoints=base.ways.endpoints,
        run_pass=make_passes(base),
        sync_calls=sync_calls,
        wake_scheduler=lambda: base.wakes({LANE}),
    )
    listener = bind(settings.allim_host, settings.allim_port)
    server = HttpServer(app)

    async def run() -> None:
        url = url_of(listener)
        log.info("listening on %s (console at %s/console, API at %s/docs)", url, url, url)
        try:
            _spare_what_stays()
            await server.serve(sockets=[listener])
        finally:
            listener.close()

    def stop() -> None:
        sync_calls.stop()
        server.stop()

    return Part(run, stop)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises ConfigurationError where the address cannot be had.
    """
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((bare, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"port {port} of {host} is taken by another program: end that, or choose another"
                " with ALLIM_PORT or --port"
            ) from None
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """Where it is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _spare_what_stays() -> None:
    """Let the garbage collector leave alone what was there before the first request.

    It would go through all of it again and again: measured a quarter of the time that creating
    notifications in bulk took.
    """
    gc.collect()
    gc.freeze()


class HttpServer(uvicorn.Server):
    """uvicorn without signal handlers: stopping is the program's business."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                loop="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                # Whose word on clients counts is for web/proxies.py to say.
                proxy_headers=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )

    def stop(self) -> None:
        """Take no more connections, end requests under way, then let `serve` return."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
