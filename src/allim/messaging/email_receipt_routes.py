"""POST /receipts/email: bounces and complaints of mails. It has no API key but its own secret."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from allim.base.validation import invalid_body
from allim.messaging.email_receipts import EmailReceipts
from allim.messaging.email_reports import EmailReports, read_mail
from allim.messaging.receipt_settings import EmailReceiptSettings
from allim.web.problems import Refused

PATH = "/receipts/email"
BODY_BYTES = 2 * 1024 * 1024
SECRET_HEADER = "X-Allim-Secret"  # noqa: S105
SCHEMAS = "#/components/schemas/{model}"
MAIL_TYPES = frozenset({"message/rfc822", "message/global"})


class EmailReceiptView(BaseModel):
    """What came of the reports."""

    ok: bool
    reports: int
    matched: int
    suppressed: int


def email_receipt_routes(receipts: EmailReceipts, settings: EmailReceiptSettings) -> APIRouter:
    """The route: neutral JSON, or one bounce or complaint mail as it arrived."""
    router = APIRouter(tags=["receipts"])

    @router.post(
        PATH,
        summary="Bounces and complaints of mails: neutral JSON, or a bounce mail as it arrived",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": {"$ref": SCHEMAS.format(model="EmailReports")}},
                },
            }
        },
    )
    async def email(request: Request) -> EmailReceiptView:
        _check_secret(settings, request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await request.body()
        if kind in MAIL_TYPES:
            taken = await receipts.take(await asyncio.to_thread(read_mail, body), by_mail=True)
        elif kind == "application/json":
            try:
                reports = EmailReports.model_validate_json(body)
            except ValidationError as error:
                raise invalid_body(error) from None
            taken = await receipts.take(reports.events)
        else:
            words = "send application/json, or a bounce mail as message/rfc822"
            raise Refused(415, "unsupported_body", words)
        return EmailReceiptView(
            ok=True, reports=taken.reports, matched=taken.matched, suppressed=taken.suppressed
        )

    return router


def email_receipt_schemas() -> dict[str, Any]:
    """The schemas that the operation described here refers to."""
    schema = EmailReports.model_json_schema(ref_template=SCHEMAS)
    schemas: dict[str, Any] = schema.pop("$defs")
    return {**schemas, "EmailReports": schema}


def _check_secret(settings: EmailReceiptSettings, request: Request) -> None:
    secret = settings.email_webhook_secret
    if secret is None:
        raise Refused(403, "webhook_not_set_up", "EMAIL_WEBHOOK_SECRET is not set")
    given = request.headers.get(SECRET_HEADER) or _of_authorization(
        request.headers.get("authorization", "")
    )
    if not hmac.compare_digest(secret.get_secret_value().encode(), given.encode()):
        raise Refused(403, "wrong_secret", f"{SECRET_HEADER} is not the right one")


def _of_authorization(header: str) -> str:
    """A bearer token, or the password of Basic: for providers that set no header of ours."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""
