"""The OpenAPI document and the page that shows it, without any outside address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, JSONResponse, Response

from allim.web.documentation_page import STYLE_PATH, page, style
from allim.web.problems import MEDIA_TYPE

_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable, for programs"},
        "detail": {"type": "string", "description": "For people"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["place", "code", "message"],
                "properties": {
                    "place": {
                        "type": "string",
                        "description": "JSON pointer into the body, or a parameter's name",
                    },
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}
_ALWAYS = {
    "400": "Malformed",
    "401": "No key, or an unknown one",
    "403": "The key lacks a scope",
    "422": "Fields are wrong",
    "503": "Overloaded, or without its database",
}
_WITH_BODY = {"413": "The body is too large", "415": "The body is not JSON"}
_METHODS = {"get", "post", "put", "patch", "delete"}


def document(
    app: FastAPI, by_hand: Mapping[str, Any], schemas: Mapping[str, Any]
) -> dict[str, Any]:
    """The OpenAPI document of an app.

    `by_hand` adds operations of plain ASGI routes ({path: {method: operation}}), `schemas` what
    they refer to.
    """
    found = get_openapi(
        title="Allim",
        version=app.version,
        description="Gets messages out of a database and into the world without losing one.",
        routes=app.routes,
    )
    for path, operations in by_hand.items():
        found.setdefault("paths", {}).setdefault(path, {}).update(operations)
    components = found.setdefault("components", {})
    components.setdefault("schemas", {}).update({**schemas, "Problem": _PROBLEM})
    components["schemas"].pop("HTTPValidationError", None)
    components["schemas"].pop("ValidationError", None)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in found["paths"].items():
        open_to_all = path.startswith("/health/")
        for method, operation in operations.items():
            if method in _METHODS:
                _describe_problems(operation, path)
                operation["security"] = [] if open_to_all else [{}, {"key": []}]
    return found


def documentation_routes(describe: Callable[[], dict[str, Any]]) -> APIRouter:
    """`/openapi.json` and `/docs`, of the document that `describe` makes when it is asked for."""
    router = APIRouter(include_in_schema=False)
    made: dict[str, Any] = {}

    def made_once() -> Any:
        if not made:
            made.update(describe())
        return made

    @router.get("/openapi.json")
    async def openapi() -> Response:
        return JSONResponse(made_once())

    @router.get("/docs")
    async def docs() -> Response:
        return HTMLResponse(page(made_once()))

    @router.get(STYLE_PATH)
    async def stylesheet() -> Response:
        return Response(style(), media_type="text/css", headers={"Cache-Control": "max-age=3600"})

    return router


def _describe_problems(operation: dict[str, Any], path: str) -> None:
    responses = operation.setdefault("responses", {})
    wanted = dict(_ALWAYS)
    if "requestBody" in operation:
        wanted |= _WITH_BODY
    if "{" in path:
        wanted["404"] = "There is no such thing"
    for status, description in wanted.items():
        if status in responses and not _is_usual(responses[status]):
            continue  # The route has a shape of its own for it.
        described = responses.get(status, {}).get("description")
        responses[status] = {
            "description": description if described in (None, "Validation Error") else described,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }


def _is_usual(response: Mapping[str, Any]) -> bool:
    """Whether this is only what FastAPI says of every route."""
    content = response.get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    return not schema or schema.get("$ref", "").endswith("/HTTPValidationError")
