"""Errors as RFC 9457 problem details: one shape for everything that goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import ErrorDetails, to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from allim.base.errors import (
    AllimError,
    DatabaseUnavailable,
    FieldProblem,
    InvalidRequest,
    Overloaded,
    RequestError,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "1"
"""Seconds after which a 503 is worth another try."""
_PROBLEMS_SHOWN = 100

logger = logging.getLogger("allim.web")


class Unauthenticated(RequestError):
    """No key, or one that nobody knows."""

    status = 401


class Refused(RequestError):
    """A request that is refused before it is looked into, with its own HTTP status."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code, message)
        self.status = status


def problem(
    status: int,
    code: str,
    detail: str,
    errors: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """One problem document."""
    body: dict[str, Any] = {
        "type": f"urn:allim:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": _sayable(detail),
    }
    if errors:
        body["errors"] = [
            {
                "place": _sayable(error.place),
                "code": error.code,
                "message": _sayable(error.message),
            }
            for error in errors[:_PROBLEMS_SHOWN]
        ]
    more = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        more.setdefault("Retry-After", RETRY_AFTER)
    if status == HTTPStatus.UNAUTHORIZED:
        more.setdefault("WWW-Authenticate", 'Bearer realm="allim"')
    return Response(to_json(body), status, more, MEDIA_TYPE)


def problem_of(error: Exception) -> Response:
    """The problem document of any exception; one that nobody foresaw is logged, not shown."""
    if isinstance(error, ValidationError):
        error = invalid_body(error)
    if isinstance(error, RequestError):
        problems: Sequence[FieldProblem] = getattr(error, "problems", ())
        detail = error.message
        if isinstance(error, InvalidRequest) and problems:
            detail = f"{len(problems)} problem(s) in the request"
        return problem(error.status, error.code, detail, problems)
    if isinstance(error, DatabaseUnavailable):
        logger.warning("database unavailable: %s", error)
        return problem(503, "database_unavailable", "the database cannot be reached")
    logger.error("unexpected error", exc_info=error)
    return problem(500, "internal_error", "an unexpected error; it was logged")


def invalid_body(error: ValidationError) -> RequestError:
    """What pydantic found wrong with a JSON body, field by field."""
    return _invalid(error.errors(include_url=False, include_input=False), body=True)


def install(app: FastAPI) -> None:
    """Answer every error of the app's routes with a problem document."""

    async def on_request_error(_request: Request, error: Exception) -> Response:
        return problem_of(error)

    async def on_validation_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_of(_invalid(error.errors(), body=False))

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, RequestError):
            return problem_of(error.__cause__)
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.NOT_FOUND:
            return problem(404, "no_route", f"there is nothing at {request.url.path}")
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_methods(app, request))
            return problem(
                405, "method_not_allowed", f"{request.method} is not for this path", (), headers
            )
        return problem(error.status_code, "refused", str(error.detail), (), headers)

    app.add_exception_handler(AllimError, on_request_error)
    app.add_exception_handler(Exception, on_request_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_exception)


def _methods(app: FastAPI, request: Request) -> Sequence[str]:
    """Asked of the routes method by method: one path may be served by several of them."""
    return [
        method
        for method in ("DELETE", "GET", "PATCH", "POST", "PUT")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in app.router.routes
        )
    ]


def _invalid(found: Sequence[ErrorDetails] | Sequence[Any], *, body: bool) -> RequestError:
    for details in found:
        if details["type"] == "json_invalid":
            reason = details.get("ctx", {}).get("error", details["msg"])
            return Refused(400, "malformed_json", f"the body is not JSON: {reason}")
    return InvalidRequest([_field_problem(details, body) for details in found])


def _field_problem(details: Any, body: bool) -> FieldProblem:
    location: tuple[int | str, ...] = details["loc"]
    code = str(details["type"])
    message = str(details["msg"])
    if code == "string_pattern_mismatch" and "\\x00" in details.get("ctx", {}).get("pattern", ""):
        code, message = "nul_character", "has a NUL character"
    if code == "extra_forbidden":
        code, message = "unknown_field", "is not a field of this request"
    if code == "missing":
        message = "is required"
    if not body and location and location[0] != "body":
        return FieldProblem(str(location[min(1, len(location) - 1)]), code, message)
    return FieldProblem(_pointer(location if body else location[1:]), code, message)


def _pointer(location: Sequence[int | str]) -> str:
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in location)


def _sayable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()[:1000]


__all__ = [
    "MEDIA_TYPE",
    "Overloaded",
    "Refused",
    "Unauthenticated",
    "install",
    "invalid_body",
    "problem",
    "problem_of",
]
