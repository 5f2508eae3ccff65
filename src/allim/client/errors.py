"""What goes wrong with a call of the API.

ClientError
├── ApiError        the server answered that it cannot be
└── Unreachable     no answer came, however often it was tried
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ValidationError

from allim.base.errors import AllimError, FieldProblem


class ClientError(AllimError):
    """A call of the API failed."""


class Unreachable(ClientError):
    """No answer came, however often it was tried; whether the server acted is not known.

    With the same idempotency key `notify` may be called again at any time.
    """


class ApiError(ClientError):
    """The server answered that it cannot be (RFC 9457).

    `code` is stable and for programs, `problems` names every bad field.
    """

    def __init__(
        self, status: int, code: str, detail: str, problems: Sequence[FieldProblem] = ()
    ) -> None:
        words = "; ".join(f"{p.place}: {p.message}" for p in problems) or detail
        super().__init__(f"{status} {code}: {words}")
        self.status = status
        self.code = code
        self.detail = detail
        self.problems = tuple(problems)


class _Problem(BaseModel):
    place: str = ""
    code: str = ""
    message: str = ""


class _Document(BaseModel):
    code: str
    detail: str = ""
    errors: list[_Problem] = []


def api_error(status: int, body: bytes) -> ApiError:
    """The error that an answer tells; one that is no problem document has the code `http_N`."""
    try:
        told = _Document.model_validate_json(body)
    except ValidationError:
        return ApiError(status, f"http_{status}", f"answered {status}")
    problems = [FieldProblem(p.place, p.code, p.message) for p in told.errors]
    return ApiError(status, told.code, told.detail, problems)
