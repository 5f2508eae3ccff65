"""JSON as it goes out: UTF-8, compact, and never an exception."""

from __future__ import annotations

import json

from pydantic_core import PydanticSerializationError, to_json

JSON_HEADERS = {"Content-Type": "application/json; charset=utf-8"}
"""What goes with it, where nothing else does."""


def json_bytes(value: object) -> bytes:
    """`value` as JSON; what JSON cannot say becomes text, a lone surrogate a question mark."""
    try:
        return to_json(value, inf_nan_mode="null", fallback=str)
    except (PydanticSerializationError, ValueError):
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
        return text.encode("utf-8", "replace")
