"""Liveness, readiness and metrics."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from allim.base.errors import DatabaseUnavailable
from allim.database.migrate import migrations
from allim.database.pool import Database
from allim.database.statements import Statements
from allim.web.access import AccessScope, requires
from allim.web.problems import problem

SQL = Statements.load("allim.web")


def health_routes(database: Database) -> APIRouter:
    """`/health/live` and `/health/ready`; neither needs a key."""
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live", summary="Whether the process serves at all")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @router.get("/ready", summary="Whether the database is reachable and migrated")
    async def ready() -> Response:
        needed = migrations()[-1].number
        try:
            rows = await database.fetch(SQL["schema_is_there"])
            at = (await database.fetch(SQL["schema_number"]))[0][0] if rows[0][0] else 0
        except DatabaseUnavailable:
            return problem(503, "database_unavailable", "the database cannot be reached")
        if at != needed:
            return problem(503, "not_migrated", f"the schema is at {at}, not at {needed}")
        return JSONResponse({"status": "ready", "schema": at})

    return router


def metrics_route(registry: CollectorRegistry) -> APIRouter:
    """`/metrics`, in the format that the scraper asks for."""
    router = APIRouter(tags=["health"])

    @router.get(
        "/metrics",
        summary="Metrics for Prometheus",
        dependencies=[Depends(requires(AccessScope.READ, every_tenant=True))],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type)

    return router
