"""What the bodies of all these calls have in common."""

from __future__ import annotations

from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field
from starlette.requests import Request

from allim.ingest.intake import Taken

Body = TypeVar("Body", bound=BaseModel)

_NUL, _SHOWN_NUL = b"\\u0000", b"\\u2400"


class TakenView(BaseModel):
    """What became of a call."""

    notifications: list[UUID] = Field(description="What was made of it; none where nothing is new")
    ignored: str | None = Field(default=None, description="Why nothing was made of it")

    @classmethod
    def of(cls, taken: Taken) -> TakenView:
        """What was taken."""
        return cls(notifications=taken.notifications, ignored=None)


async def raw_json(request: Request) -> bytes:
    """The body, with NUL characters made visible: PostgreSQL could not store them.

    Nobody who sends these bodies can correct them, so they are not refused for it.
    """
    return shown_nul(await request.body())


def shown_nul(body: bytes) -> bytes:
    """JSON with the picture of NUL (U+2400) for each NUL; still JSON, even behind a backslash."""
    return body.replace(_NUL, _SHOWN_NUL)


def parse(model: type[Body], body: bytes) -> Body:
    """Read a JSON body. Raises pydantic's ValidationError, which is answered with its places."""
    return model.model_validate_json(body)


def json_body(schema: dict[str, Any], *more_types: str) -> dict[str, Any]:
    """What OpenAPI says of a body that is read by hand."""
    content = {kind: {"schema": schema} for kind in ("application/json", *more_types)}
    return {"requestBody": {"required": True, "content": content}}
