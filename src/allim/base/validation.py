"""What pydantic found wrong with a request, in our words and with our places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from allim.base.errors import FieldProblem, InvalidRequest, RequestError

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], given: object) -> Model:
    """Python values as a model. Raises InvalidRequest with every problem, as `invalid_body` has."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise invalid_body(error) from None


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


_OUR_WORDS = {
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
    "bool_parsing": "must be true or false",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "timezone_aware": "needs its offset from UTC, as in 2026-01-31T09:00:00+09:00 or …T00:00:00Z",
}
_BEGINNINGS = (
    ("Value error, ", ""),
    ("Assertion failed, ", ""),
    ("Input should be a valid ", "must be a valid "),
    ("Input should be ", "must be "),
    ("Input should ", "must "),
    ("String should ", "must "),
    ("List should ", "must "),
)


def in_our_words(found: Any) -> str:
    """What pydantic found, said as the rest of Allim says it."""
    message = str(found["msg"])
    if found["type"] in ("too_short", "too_long"):
        message = message.partition(" after validation, ")[0]
    for beginning, ours in _BEGINNINGS:
        if message.startswith(beginning):
            message = ours + message.removeprefix(beginning)
            break
    return _OUR_WORDS.get(found["type"], message)


def _problem(found: Any, place: str) -> FieldProblem:
    code, message = str(found["type"]), in_our_words(found)
    if code == "string_pattern_mismatch" and "\\x00" in found.get("ctx", {}).get("pattern", ""):
        return FieldProblem(place, "nul_character", "has a NUL character")
    if code == "extra_forbidden":
        return FieldProblem(place, "unknown_field", "is not a known field")
    if code == "missing":
        return FieldProblem(place, code, "is required")
    return FieldProblem(place, code, message)


def _parameter(location: Sequence[int | str]) -> str:
    if location and location[0] == "body":
        return _pointer(location[1:])
    return str(location[min(1, len(location) - 1)])


def _pointer(location: Sequence[int | str]) -> str:
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in location)
