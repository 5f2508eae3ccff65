"""Routes that are on record: who called them, for what, and how it ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError

from allim.base.errors import RequestError
from allim.hub.audit import AuditLog, Entry
from allim.web.access import principal_of


def keep_audit(app: Any, log: AuditLog) -> None:
    """Have the audited routes of an application write to this log."""
    app.state.audit = log


def audited(action: str, subject: str) -> Any:
    """A dependency that puts a route on record: ``audited("delivery.retry", "delivery {id}")``.

    `action` is a stable word; `subject` is filled from the parameters of the path. What the body
    of the request says is not on record. A call that is refused is there too.
    """

    async def keep(request: Request) -> AsyncIterator[None]:
        log: AuditLog = request.app.state.audit
        principal = principal_of(request)
        about = subject.format_map(request.path_params)
        number = await log.begin(Entry(principal.name, action, about, principal.tenant_id))
        try:
            yield
        except RequestError as error:
            await log.end(number, refused=error.code)
            raise
        except RequestValidationError:
            await log.end(number, refused="invalid_request")
            raise
        await log.end(number)

    return Depends(keep, scope="function")
