"""How the demo speaks: to Allim over HTTP, and to whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from allim.base.errors import AllimError
from allim.demo.stage import Stage

LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 60.0

Say = Callable[[str], None]


async def call(stage: Stage, method: str, path: str, **more: Any) -> dict[str, Any]:
    """The answer to a request. Raises AllimError with what an error says."""
    async with stage.session.request(method, stage.url + path, **more) as answer:
        body: dict[str, Any] = await answer.json(content_type=None)
        if answer.status >= 400:
            said = body.get("detail") or body.get("error")
            raise AllimError(f"{method} {path} answered {answer.status}: {said}")
        return body
