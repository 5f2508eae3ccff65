"""The composition root: makes the HTTP application out of its parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.responses import RedirectResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from allim.base.settings import Environment
from allim.channels.channel import Channel
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
    settings = environment.read(AccessSettings)
    unsubscribing = environment.read(UnsubscribeSettings)
    keys = ApiKeys(
        database,
        read_keys(settings.allim_api_keys),
        needed=not is_loopback(settings.allim_host),
    )
    coalescer = Coalescer(database, on_commit)
    reader = Reader(database)
    sync_calls = sync_calls or SyncCalls(None)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await sync_calls.close()
        await coalescer.close()

    shelf = TemplateShelf()
    find_templates = partial(shelf.find, database)
    create = CreateNotification(channels, coalescer, find_templates)
    bulk = CreateBulk(BulkCreation(channels, coalescer, find_templates))
    app = Application(
        access=AccessMiddleware(
            fast={("POST", "/notifications"): create, ("POST", "/notifications/bulk"): bulk},
            keys=keys,
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
    audit = AuditLog(database)
    keep_audit(app, audit)
    # Never reached, but it makes the route known to whoever asks what there is.
    app.router.routes.insert(0, Route("/notifications", create, methods=["POST"]))
    app.router.routes.insert(0, Route("/notifications/bulk", bulk, methods=["POST"]))
    app.include_router(reading_routes(reader))
    app.include_router(operation_routes(Operations(database, on_commit), reader))
    app.include_router(replay_routes(Replays(database, on_commit)))
    app.include_router(endpoint_routes(endpoints or EndpointBook(database)))
    app.include_router(template_routes(TemplateBook(database, shelf), channels))
    app.include_router(quiet_hours_routes(QuietHoursBook(database), channels))
    app.include_router(job_routes(sync_calls))
    app.include_router(
        dispatch_routes(OutboxDispatch(database, run_pass, environment.read(DispatchSettings)))
    )
    app.include_router(record_routes(Runs(database), Alerts(database)))
    app.include_router(schedule_routes(Schedules(database, JOB_KINDS, wake_scheduler)))
    intake = Intake(database, channels, environment, on_commit)
    app.include_router(message_routes(intake, coalescer))
    app.include_router(reservation_routes(Reservations(database)))
    suppressions = SuppressionList(database)
    app.include_router(suppression_routes(suppressions))
    app.include_router(unsubscribe_routes(unsubscribing.links(), suppressions))
    app.include_router(tenant_routes(Tenants(database)))
    app.include_router(trace_routes(Tracer(database)))
    inbox = ReceiptInbox(database, on_commit)
    app.include_router(receipt_routes(inbox, environment.read(ReceiptSettings)))
    email_receipts = EmailReceipts(database, channels)
    app.include_router(email_receipt_routes(email_receipts, environment.read(EmailReceiptSettings)))
    app.include_router(event_routes(database, Encryption.of(environment), on_commit))
    app.include_router(ingest_routes(database, channels, environment, on_commit))
    app.include_router(health_routes(database))
    app.include_router(metrics_route(registry or CollectorRegistry()))
    services = ConsoleServices(
        database=database,
        on_commit=on_commit,
        environment=environment,
        channels=channels,
        keys=keys,
        audit=audit,
        reader=reader,
        operations=Operations(database, on_commit),
        replays=Replays(database, on_commit),
        endpoints=endpoints or EndpointBook(database),
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
    console = make_console(services)
    app.router.routes[1:1] = [Route(path, RedirectResponse("console/")) for path in ("/", CONSOLE)]
    app.mount(CONSOLE, console)
    app.include_router(documentation_routes(lambda: api_document(app)))
    return app


def api_document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an application of `create_app`."""
    by_hand = {
        "/notifications": {"post": CREATE_OPERATION},
        "/notifications/bulk": {"post": BULK_OPERATION},
    }
    return document(app, by_hand, {**create_schemas(), **email_receipt_schemas()})
