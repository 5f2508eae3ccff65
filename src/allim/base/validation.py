"""What pydantic found wrong with a request, in our words and with our places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from allim.base.errors import FieldProblem, InvalidRequest, RequestError


def invalid_body(error: ValidationError) -> RequestError:
    """What is wrong with a JSON body, field by field; places are JSON pointers into it."""
    details = error.errors(include_url=False, include_input=False)
    return _malformed(details) or InvalidRequest(
        [_problem(found, _pointer(found["loc"])) for found in details]
    )


def invalid_parameters(details: Sequence[Any]) -> RequestError:
    """The same for what FastAPI found, whose locations begin with ``body``, ``query``, ``path``."""
    return _malformed(details) or InvalidRequest(
        [_problem(found, _parameter(found["loc"])) for found in details]
    )


def _malformed(details: Sequence[Any]) -> RequestError | None:
    for found in details:
        if found["type"] == "json_invalid":
            reason = found.get("ctx", {}).get("error", found["msg"])
            return RequestError("malformed_json", f"the body is not JSON: {reason}")
    return None


def _problem(found: Any, place: str) -> FieldProblem:
    code, message = str(found["type"]), str(found["msg"])
    if code == "string_pattern_mismatch" and "\\x00" in found.get("ctx", {}).get("pattern", ""):
        return FieldProblem(place, "nul_character", "has a NUL character")
    if code == "extra_forbidden":
        return FieldProblem(place, "unknown_field", "is not a field of this request")
    if code == "missing":
        return FieldProblem(place, code, "is required")
    return FieldProblem(place, code, message)


def _parameter(location: Sequence[int | str]) -> str:
    if location and location[0] == "body":
        return _pointer(location[1:])
    return str(location[min(1, len(location) - 1)])


def _pointer(location: Sequence[int | str]) -> str:
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in location)
