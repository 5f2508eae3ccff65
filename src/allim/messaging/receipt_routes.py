"""POST /receipts/solapi: Solapi's webhook. It has no API key but a secret of its own."""

from __future__ import annotations

import hashlib
import hmac

from fastapi import APIRouter
from pydantic_core import from_json
from starlette.requests import Request

from allim.channels.solapi.client import GROUP_ID
from allim.messaging.receipt_settings import ReceiptSettings
from allim.messaging.receipts import ReceiptInbox, groups_in
from allim.web.problems import Refused

PATH = "/receipts/solapi"
BODY_BYTES = 4 * 1024 * 1024
GROUPS_LIMIT = 10_000
SECRET_HEADER = "X-Solapi-Secret"  # noqa: S105


def receipt_routes(inbox: ReceiptInbox, settings: ReceiptSettings) -> APIRouter:
    """The route. It stores where to look and answers; what is there is looked up afterwards."""
    router = APIRouter(tags=["receipts"])

    @router.post(
        PATH,
        summary="Delivery reports of Solapi's webhook",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"type": "array", "items": {}}}},
            }
        },
    )
    async def solapi(request: Request) -> dict[str, bool]:
        _check_secret(settings, request.headers.get(SECRET_HEADER, ""))
        try:
            report = from_json(await request.body())
        except ValueError:
            raise Refused(400, "not_json", "the body is not JSON") from None
        groups = {group for group in groups_in(report) if GROUP_ID.fullmatch(group)}
        if len(groups) > GROUPS_LIMIT:
            raise Refused(413, "too_many_groups", f"speaks of more than {GROUPS_LIMIT} groups")
        await inbox.hear_of(groups)
        return {"ok": True}

    return router


def expected_secret(secret: str) -> str:
    """What the header must hold where the webhook's secret is `secret`: its SHA-1, in hex."""
    return hashlib.sha1(secret.encode()).hexdigest()  # noqa: S324


def _check_secret(settings: ReceiptSettings, given: str) -> None:
    secret = settings.solapi_webhook_secret
    if secret is None:
        raise Refused(
            403,
            "webhook_not_set_up",
            "SOLAPI_WEBHOOK_SECRET is not set; reports are asked for instead",
        )
    expected = expected_secret(secret.get_secret_value())
    if not hmac.compare_digest(expected.encode(), given.strip().lower().encode()):
        raise Refused(403, "wrong_secret", f"{SECRET_HEADER} is not the right one")
