"""Errors as RFC 9457 problem details: one shape for everything that goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import from_json, to_json
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
from allim.base.validation import invalid_body, invalid_parameters

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "1"
"""Seconds after which a 503 is worth another try."""
CHALLENGE = 'Bearer realm="allim"'
"""What a 401 asks for, as the header WWW-Authenticate."""
_PROBLEMS_SHOWN = 100
_PROBLEMS_TOLD = 3

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
    """One problem document, as an answer."""
    more = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        more.setdefault("Retry-After", RETRY_AFTER)
    if status == HTTPStatus.UNAUTHORIZED:
        more.setdefault("WWW-Authenticate", CHALLENGE)
    return Response(to_json(_document(status, code, detail, errors)), status, more, MEDIA_TYPE)


def document_of(error: Exception) -> dict[str, Any]:
    """The problem document of an exception, to stand within another answer."""
    found: dict[str, Any] = from_json(bytes(problem_of(error).body))
    return found


def _document(
    status: int, code: str, detail: str, errors: Sequence[FieldProblem]
) -> dict[str, Any]:
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
    return body


def problem_of(error: Exception) -> Response:
    """The problem document of any exception; one that nobody foresaw is logged, not shown."""
    if isinstance(error, ValidationError):
        error = invalid_body(error)
    if isinstance(error, RequestError):
        problems: Sequence[FieldProblem] = getattr(error, "problems", ())
        detail = error.message
        if isinstance(error, InvalidRequest) and problems:
            detail = _in_one_line(problems)
        return problem(error.status, error.code, detail, problems)
    if isinstance(error, DatabaseUnavailable):
        logger.warning("database unavailable: %s", error)
        return problem(503, "database_unavailable", "the database cannot be reached")
    logger.error("unexpected error", exc_info=error)
    return problem(500, "internal_error", "an unexpected error; it was logged")


def _in_one_line(problems: Sequence[FieldProblem]) -> str:
    """The first few of them, for whoever logs the detail alone."""
    told = [f"{each.place or 'body'}: {each.message}" for each in problems[:_PROBLEMS_TOLD]]
    if len(problems) > _PROBLEMS_TOLD:
        told.append(f"and {len(problems) - _PROBLEMS_TOLD} more")
    return "; ".join(told)


def install(app: FastAPI) -> None:
    """Answer every error of the app's routes with a problem document."""

    async def on_request_error(_request: Request, error: Exception) -> Response:
        return problem_of(error)

    async def on_validation_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_of(invalid_parameters(error.errors()))

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


def _sayable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()[:1000]


__all__ = [
    "MEDIA_TYPE",
    "Overloaded",
    "Refused",
    "Unauthenticated",
    "document_of",
    "install",
    "problem",
    "problem_of",
]
