"""The composition root: makes the HTTP application out of its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.hub.coalescer import Coalescer, OnCommit
from allim.hub.reading import Reader
from allim.hub.routes import CreateNotification, reading_routes
from allim.web import problems
from allim.web.access import AccessMiddleware
from allim.web.keys import ApiKeys, read_keys
from allim.web.settings import AccessSettings


def create_app(
    database: Database,
    channels: Mapping[str, Channel],
    environment: Environment,
    *,
    on_commit: OnCommit = lambda lanes: None,
    registry: CollectorRegistry | None = None,
) -> FastAPI:
    """The HTTP application over an open database.

    `on_commit` hears the lanes that have new work after each commit; `registry` is what
    /metrics shows. Raises ConfigurationError for settings that cannot be.
    """
    settings = environment.read(AccessSettings)
    keys = ApiKeys(database, read_keys(settings.allim_api_keys))
    coalescer = Coalescer(database, on_commit)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await coalescer.close()

    app = FastAPI(title="Allim", lifespan=lifespan, docs_url=None, redoc_url=None)
    problems.install(app)
    app.add_middleware(AccessMiddleware, keys=keys, allowed_hosts=settings.allowed_hosts())
    app.router.routes.insert(
        0, Route("/notifications", CreateNotification(channels, coalescer), methods=["POST"])
    )
    app.include_router(reading_routes(Reader(database)))
    return app
