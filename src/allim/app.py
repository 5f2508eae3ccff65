"""The composition root: makes the HTTP application out of its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.events.encryption import Encryption
from allim.events.requests import BODY_LIMIT as EVENTS_BODY_LIMIT
from allim.events.routes import event_routes
from allim.hub.bulk import BULK_LIMIT, BulkCreation
from allim.hub.coalescer import Coalescer, OnCommit
from allim.hub.endpoints import EndpointBook
from allim.hub.operations import Operations
from allim.hub.operator_routes import endpoint_routes, operation_routes
from allim.hub.reading import Reader
from allim.hub.routes import (
    CREATE_OPERATION,
    CreateNotification,
    bulk_route,
    create_schemas,
    reading_routes,
)
from allim.web import problems
from allim.web.access import AccessMiddleware, is_loopback
from allim.web.documentation import documentation_routes
from allim.web.health import health_routes, metrics_route
from allim.web.keys import ApiKeys, read_keys
from allim.web.settings import AccessSettings


class Application(FastAPI):
    """FastAPI behind the access middleware, and not before it.

    What FastAPI does around every request costs more than the one route whose speed is
    promised; the middleware calls that one itself.
    """

    def __init__(self, *, access: AccessMiddleware, **more: Any) -> None:
        super().__init__(**more)
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await self._access(scope, receive, send, super().__call__)


def create_app(
    database: Database,
    channels: Mapping[str, Channel],
    environment: Environment,
    *,
    on_commit: OnCommit = lambda lanes: None,
    registry: CollectorRegistry | None = None,
    endpoints: EndpointBook | None = None,
) -> FastAPI:
    """The HTTP application over an open database.

    `on_commit` hears the lanes that have new work after each commit; `registry` is what
    /metrics shows; `endpoints` is the book that the channels sign by, where there is one in
    this process. Raises ConfigurationError for settings that cannot be.
    """
    settings = environment.read(AccessSettings)
    keys = ApiKeys(
        database,
        read_keys(settings.allim_api_keys),
        needed=not is_loopback(settings.allim_host),
    )
    coalescer = Coalescer(database, on_commit)
    reader = Reader(database)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await coalescer.close()

    create = CreateNotification(channels, coalescer)
    app = Application(
        access=AccessMiddleware(
            fast={("POST", "/notifications"): create},
            keys=keys,
            allowed_hosts=settings.allowed_hosts(),
            body_limits={"/notifications/bulk": BULK_LIMIT, "/events": EVENTS_BODY_LIMIT},
        ),
        title="Allim",
        version=version("allim"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    problems.install(app)
    # Never reached, but it makes the route known to whoever asks what there is.
    app.router.routes.insert(0, Route("/notifications", create, methods=["POST"]))
    app.include_router(bulk_route(BulkCreation(channels, coalescer)))
    app.include_router(reading_routes(reader))
    app.include_router(operation_routes(Operations(database, on_commit), reader))
    app.include_router(endpoint_routes(endpoints or EndpointBook(database)))
    app.include_router(event_routes(database, Encryption.of(environment), on_commit))
    app.include_router(health_routes(database))
    app.include_router(metrics_route(registry or CollectorRegistry()))
    by_hand = {"/notifications": {"post": CREATE_OPERATION}}
    app.include_router(documentation_routes(app, by_hand, create_schemas()))
    return app
