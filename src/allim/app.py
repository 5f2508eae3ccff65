"""The composition root: makes the HTTP application out of its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from starlette.responses import RedirectResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.channels.table import CHANNELS
from allim.channels.unsubscribing import UnsubscribeSettings
from allim.console.console import make_console
from allim.console.services import ConsoleServices
from allim.database.pool import Database
from allim.enrolment.alerts import Alerts
from allim.enrolment.calls import SyncCalls
from allim.enrolment.dispatch import OutboxDispatch, RunPass, no_passes
from allim.enrolment.dispatch_routes import dispatch_routes
from allim.enrolment.dispatch_settings import DispatchSettings
from allim.enrolment.job_answers import refusal_of
from allim.enrolment.routes import job_routes, record_routes
from allim.enrolment.runs import Runs
from allim.enrolment.scheduled import JOB_KINDS
from allim.events.encryption import Encryption
from allim.events.reading import EventReader
from allim.events.relaying.operations import OutboxOperator
from allim.events.requests import BODY_LIMIT as EVENTS_BODY_LIMIT
from allim.events.routes import event_routes
from allim.hub.audit import AuditLog
from allim.hub.audited import keep_audit
from allim.hub.bulk import BULK_LIMIT, BulkCreation
from allim.hub.coalescer import Coalescer, OnCommit
from allim.hub.endpoints import EndpointBook
from allim.hub.operations import Operations
from allim.hub.operator_routes import endpoint_routes, operation_routes
from allim.hub.quiet_hours import QuietHoursBook
from allim.hub.quiet_hours_routes import quiet_hours_routes
from allim.hub.reading import Reader
from allim.hub.replay_routes import replay_routes
from allim.hub.replays import Replays
from allim.hub.routes import (
    BULK_OPERATION,
    CREATE_OPERATION,
    CreateBulk,
    CreateNotification,
    create_schemas,
    reading_routes,
)
from allim.hub.templates.book import TemplateBook
from allim.hub.templates.routes import template_routes
from allim.hub.templates.shelf import TemplateShelf
from allim.ingest.routes import BODY_LIMITS as INGEST_LIMITS
from allim.ingest.routes import ingest_routes
from allim.messaging.cancellation import Reservations
from allim.messaging.email_receipt_routes import BODY_BYTES as EMAIL_RECEIPT_LIMIT
from allim.messaging.email_receipt_routes import PATH as EMAIL_RECEIPTS
from allim.messaging.email_receipt_routes import email_receipt_routes, email_receipt_schemas
from allim.messaging.email_receipts import EmailReceipts
from allim.messaging.intake import Intake
from allim.messaging.receipt_routes import BODY_BYTES as RECEIPT_LIMIT
from allim.messaging.receipt_routes import PATH as RECEIPTS
from allim.messaging.receipt_routes import receipt_routes
from allim.messaging.receipt_settings import EmailReceiptSettings, ReceiptSettings
from allim.messaging.receipts import ReceiptInbox
from allim.messaging.routes import (
    message_routes,
    reservation_routes,
    suppression_routes,
    trace_routes,
)
from allim.messaging.suppression import SuppressionList
from allim.messaging.tenant_routes import tenant_routes
from allim.messaging.tenants import Tenants
from allim.messaging.tracing import Tracer
from allim.messaging.unsubscribe_routes import unsubscribe_routes
from allim.scheduler.routes import schedule_routes
from allim.scheduler.schedules import Schedules
from allim.web import problems
from allim.web.access import CONSOLE, AccessMiddleware, is_loopback
from allim.web.documentation import document, documentation_routes
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
    sync_calls: SyncCalls | None = None,
    wake_scheduler: Callable[[], None] = lambda: None,
    run_pass: RunPass = no_passes,
) -> FastAPI:
    """The HTTP application over an open database.

    `on_commit` hears the lanes that have new work after each commit; `registry` is what
    /metrics shows; `endpoints` is the book that the channels sign by, where there is one in
    this process; `sync_calls` run the enrolment sync, where an LMS is set up; `wake_scheduler`
    is called when a schedule was changed; `run_pass` sends for the dispatch endpoints. Raises
    ConfigurationError for settings that cannot be.
    """
    services = _services(
        database,
        channels,
        environment,
        on_commit=on_commit,
        endpoints=endpoints or EndpointBook(database),
        sync_calls=sync_calls or SyncCalls(None),
        wake_scheduler=wake_scheduler,
    )
    shelf = TemplateShelf()
    coalescer = Coalescer(database, on_commit)
    find_templates = partial(shelf.find, database)
    fast: dict[str, ASGIApp] = {
        "/notifications": CreateNotification(channels, coalescer, find_templates),
        "/notifications/bulk": CreateBulk(BulkCreation(channels, coalescer, find_templates)),
    }
    app = _application(services, fast, coalescer)
    for router in (
        *_hub_routes(services, TemplateBook(database, shelf)),
        *_enrolment_routes(services, run_pass),
        schedule_routes(services.schedules),
        *_messaging_routes(services, coalescer),
        event_routes(database, Encryption.of(environment), on_commit),
        ingest_routes(database, channels, environment, on_commit),
        health_routes(database),
        metrics_route(registry or CollectorRegistry()),
    ):
        app.include_router(router)
    # Never reached, but it makes the routes known to whoever asks what there is.
    known = [Route(path, route, methods=["POST"]) for path, route in fast.items()]
    to_console = [Route(path, RedirectResponse("console/")) for path in ("/", CONSOLE)]
    app.router.routes[:0] = [*known, *to_console]
    app.mount(CONSOLE, make_console(services))
    app.include_router(documentation_routes(lambda: api_document(app)))
    return app


def _services(
    database: Database,
    channels: Mapping[str, Channel],
    environment: Environment,
    *,
    on_commit: OnCommit,
    endpoints: EndpointBook,
    sync_calls: SyncCalls,
    wake_scheduler: Callable[[], None],
) -> ConsoleServices:
    """What routes and pages are made of, each once."""
    settings = environment.read(AccessSettings)
    return ConsoleServices(
        database=database,
        on_commit=on_commit,
        environment=environment,
        channels=channels,
        keys=ApiKeys(
            database,
            read_keys(settings.allim_api_keys),
            needed=not is_loopback(settings.allim_host),
        ),
        audit=AuditLog(database),
        reader=Reader(database),
        operations=Operations(database, on_commit),
        replays=Replays(database, on_commit),
        endpoints=endpoints,
        events=EventReader(database),
        event_operator=OutboxOperator(database, lambda lanes: on_commit(set(lanes))),
        runs=Runs(database),
        alerts=Alerts(database),
        sync_calls=sync_calls,
        schedules=Schedules(database, JOB_KINDS, wake_scheduler),
        tenants=Tenants(database),
        tracer=Tracer(database),
        suppressions=SuppressionList(database),
    )


def _application(
    services: ConsoleServices, fast: Mapping[str, ASGIApp], coalescer: Coalescer
) -> Application:
    """The application without its routes; `fast` are the POST routes that go past FastAPI."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await services.sync_calls.close()
        await coalescer.close()

    settings = services.environment.read(AccessSettings)
    unsubscribing = services.environment.read(UnsubscribeSettings)
    app = Application(
        access=AccessMiddleware(
            fast={("POST", path): route for path, route in fast.items()},
            keys=services.keys,
            allowed_hosts=[*settings.allowed_hosts(), *unsubscribing.public_hosts()],
            body_limits={
                "/notifications/bulk": BULK_LIMIT,
                "/events": EVENTS_BODY_LIMIT,
                RECEIPTS: RECEIPT_LIMIT,
                EMAIL_RECEIPTS: EMAIL_RECEIPT_LIMIT,
                **INGEST_LIMITS,
            },
            refusals={"/jobs/": refusal_of},
        ),
        title="Allim",
        version=version("allim"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    problems.install(app)
    keep_audit(app, services.audit)
    return app


def _hub_routes(services: ConsoleServices, templates: TemplateBook) -> Sequence[APIRouter]:
    known = {*services.channels, *(entry.name for entry in CHANNELS)}
    return (
        reading_routes(services.reader, known),
        operation_routes(services.operations, services.reader),
        replay_routes(services.replays, known),
        endpoint_routes(services.endpoints, services.channels),
        template_routes(templates, services.channels),
        quiet_hours_routes(QuietHoursBook(services.database), services.channels),
    )


def _enrolment_routes(services: ConsoleServices, run_pass: RunPass) -> Sequence[APIRouter]:
    settings = services.environment.read(DispatchSettings)
    return (
        job_routes(services.sync_calls),
        dispatch_routes(OutboxDispatch(services.database, run_pass, settings)),
        record_routes(services.runs, services.alerts),
    )


def _messaging_routes(services: ConsoleServices, coalescer: Coalescer) -> Sequence[APIRouter]:
    database, channels, environment = services.database, services.channels, services.environment
    links = environment.read(UnsubscribeSettings).links()
    return (
        message_routes(Intake(database, channels, environment, services.on_commit), coalescer),
        reservation_routes(Reservations(database)),
        suppression_routes(services.suppressions),
        unsubscribe_routes(links, services.suppressions),
        tenant_routes(services.tenants),
        trace_routes(services.tracer),
        receipt_routes(
            ReceiptInbox(database, services.on_commit), environment.read(ReceiptSettings)
        ),
        email_receipt_routes(
            EmailReceipts(database, channels), environment.read(EmailReceiptSettings)
        ),
    )


def api_document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an application of `create_app`."""
    by_hand = {
        "/notifications": {"post": CREATE_OPERATION},
        "/notifications/bulk": {"post": BULK_OPERATION},
    }
    return document(app, by_hand, {**create_schemas(), **email_receipt_schemas()})
