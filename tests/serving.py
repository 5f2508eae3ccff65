"""An application over a real socket, in the loop of the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from allim.composition.serving import HttpServer, bind, url_of

PATIENCE_SECONDS = 60.0


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """Serve an app on a free port as `allim up` does; its URL."""
    listener = bind("127.0.0.1", 0)
    server = HttpServer(app)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not server.started:
                await asyncio.sleep(0.005)
        yield url_of(listener)
    finally:
        server.stop()
        await task
        listener.close()
