"""How `/jobs/*` answers what goes wrong: in a shape of their own, not as problem details.

``{"ok": false, "error": "…", "errors": [{"place", "code", "message"}]}``: `error` says all of it
in one line, `errors` names every bad field of a request.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from allim.base.errors import DatabaseUnavailable, RequestError
from allim.base.validation import invalid_parameters
from allim.web.problems import CHALLENGE, RETRY_AFTER, document_of


class BadField(BaseModel):
    """One thing wrong with one field."""

    place: str = Field(description="JSON pointer into the body")
    code: str
    message: str


class JobRefused(BaseModel):
    """A job that was not done."""

    ok: bool = Field(default=False, examples=[False])
    error: str = Field(description="Why, in one line")
    errors: list[BadField] | None = Field(default=None, description="Every bad field")


JOB_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": JobRefused, "description": "The body is not JSON"},
    413: {"model": JobRefused, "description": "The body is too large"},
    415: {"model": JobRefused, "description": "The body is not sent as application/json"},
    422: {"model": JobRefused, "description": "Fields are wrong; `errors` names each"},
    503: {"model": JobRefused, "description": "Not set up, or without the database"},
}
"""What every job may answer, for OpenAPI."""


class JobRoute(APIRoute):
    """A route under `/jobs/`: whatever is raised in it is answered in the jobs' shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler within ours."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except ClientDisconnect:
                raise
            except Exception as error:  # The boundary of the jobs' answers.
                return refusal_of(error)

        return answer


def refusal_of(error: Exception) -> JSONResponse:
    """The answer for any exception; one that nobody foresaw is logged, not shown."""
    cause = error
    if isinstance(error, RequestValidationError):
        cause = invalid_parameters(error.errors())
    elif isinstance(error, HTTPException):
        if not isinstance(error.__cause__, RequestError):
            return refusal(error.status_code, str(error.detail))
        cause = error.__cause__
    document = document_of(cause)
    fields = document.get("errors")
    said = document["detail"]
    if fields:
        said = "; ".join(f"{field['place'] or 'body'}: {field['message']}" for field in fields)
    headers = {}
    if isinstance(cause, DatabaseUnavailable):
        headers["Retry-After"] = RETRY_AFTER
    if document["status"] == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = CHALLENGE
    return refusal(document["status"], said, fields=fields, headers=headers)


def refusal(
    status: int,
    error: str,
    *,
    fields: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """One refusal, as an answer."""
    body: dict[str, Any] = {"ok": False, "error": error}
    if fields:
        body["errors"] = fields
    return JSONResponse(body, status, headers)
