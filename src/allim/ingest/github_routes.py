"""`POST /ingest/github`. It has no API key but the signature of the webhook's secret."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from pydantic import SecretStr
from pydantic_core import from_json

from allim.base.errors import FieldProblem, IdempotencyMismatch, InvalidRequest, RequestError
from allim.ingest.bodies import TakenView, json_body, shown_nul
from allim.ingest.github_events import Ignored, event_of
from allim.ingest.intake import Caller, Intake
from allim.ingest.routing import Source
from allim.web.problems import Refused, Unauthenticated

PATH = "/ingest/github"
BODY_BYTES = 8 * 1024 * 1024
SIGNATURE = "X-Hub-Signature-256"
EVENT = "X-GitHub-Event"
DELIVERY = "X-GitHub-Delivery"
FORM = "application/x-www-form-urlencoded"

_DELIVERY = re.compile(r"[A-Za-z0-9-]{1,64}")


def github_routes(intake: Intake, secret: SecretStr | None) -> APIRouter:
    """The route. A delivery that GitHub sends again is told once."""
    router = APIRouter(tags=["ingest"])

    @router.post(
        PATH,
        status_code=202,
        summary="Events of GitHub's webhook; signed, so without an API key",
        openapi_extra=json_body({"type": "object"}, FORM),
    )
    async def github(request: Request) -> TakenView:
        body = await request.body()
        _check_signature(secret, request.headers.get(SIGNATURE, ""), body)
        name = request.headers.get(EVENT, "")
        if name == "ping":
            return TakenView(notifications=[], ignored="ping: the signature is right")
        intake.require(Source.GITHUB)
        _require_delivery(request)
        # The body alone is signed, not the delivery's id nor the event's name: whoever has seen
        # one must not bring it again under others.
        key = hashlib.sha256(body).hexdigest()
        try:
            payload = await asyncio.to_thread(_payload, request, body)
            event = event_of(name, payload)
        except Ignored as why:
            return TakenView(notifications=[], ignored=str(why))
        routes = intake.routes.choose(Source.GITHUB, event.labels)
        try:
            return TakenView.of(await intake.take(event.report, routes, Caller(), key))
        except IdempotencyMismatch:
            # Sent again by hand after the routes, or our words, have changed.
            return TakenView(notifications=[], ignored="this delivery was told before")

    return router


def signature_of(secret: str, body: bytes) -> str:
    """What the header must hold for a body as it came."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _check_signature(secret: SecretStr | None, given: str, body: bytes) -> None:
    if secret is None:
        raise Refused(403, "webhook_not_set_up", "INGEST_GITHUB_SECRET is not set")
    if not given:
        raise Unauthenticated("unsigned", f"{SIGNATURE} is missing: set the webhook's secret")
    expected = signature_of(secret.get_secret_value(), body)
    if not hmac.compare_digest(expected.encode(), given.strip().encode("latin-1", "replace")):
        raise Unauthenticated(
            "wrong_signature", f"{SIGNATURE} does not fit the body and the secret"
        )


def _require_delivery(request: Request) -> None:
    delivery = request.headers.get(DELIVERY, "")
    if not _DELIVERY.fullmatch(delivery):
        raise InvalidRequest(
            [
                FieldProblem(
                    DELIVERY, "missing", "must be the id of the delivery, as GitHub sends it"
                )
            ]
        )


def _payload(request: Request, body: bytes) -> dict[str, Any]:
    if request.headers.get("content-type", "").split(";")[0].strip().lower() == FORM:
        # The form that GitHub's page proposes: the same JSON as its field `payload`.
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10)
        body = fields.get("payload", [""])[0].encode("utf-8", "replace")
    try:
        payload = from_json(shown_nul(body))
    except ValueError as error:
        raise RequestError("malformed_json", f"the body is not JSON: {error}") from None
    if not isinstance(payload, dict):
        raise InvalidRequest([FieldProblem("", "model_type", "must be a JSON object")])
    return payload
