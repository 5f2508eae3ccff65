"""The OpenAPI document: complete, shown without outside addresses, and held against the server."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.hub.conftest import Api

PROBLEM = "application/problem+json"


async def test_every_route_is_described_with_its_problems(api: Api) -> None:
    document = (await api.get("/openapi.json")).json

    described = {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert described >= {
        "POST /notifications",
        "GET /notifications",
        "GET /notifications/{notification_id}",
        "POST /notifications/{notification_id}/cancel",
        "GET /deliveries",
        "GET /deliveries/{delivery_id}",
        "POST /deliveries/{delivery_id}/retry",
        "POST /deliveries/{delivery_id}/discard",
        "GET /endpoints",
        "POST /endpoints",
        "GET /health/live",
        "GET /health/ready",
        "GET /metrics",
    }
    for path, operations in document["paths"].items():
        # What refuses a job is in a shape of its own.
        kind = "application/json" if path.startswith("/jobs/") else PROBLEM
        for operation in operations.values():
            assert {"401", "403", "422", "503"} <= set(operation["responses"])
            assert kind in operation["responses"]["422"]["content"]
            assert operation["summary"]


async def test_every_reference_of_the_document_leads_somewhere(api: Api) -> None:
    answer = await api.get("/openapi.json")

    names = set(re.findall(rb'"#/components/schemas/([^"]+)"', answer.body))
    assert names
    assert {name.decode() for name in names} <= set(answer.json["components"]["schemas"])


async def test_the_page_needs_nothing_from_outside(api: Api) -> None:
    answer = await api.get("/docs")

    assert answer.status == 200
    assert b"<code>/notifications</code>" in answer.body
    assert not re.search(rb"(src|href)=['\"]?(https?:)?//", answer.body)
    (style,) = re.findall(r"rel='stylesheet' href='([^']+)'", answer.body.decode())
    sheet = await api.get(style)
    assert sheet.status == 200
    assert sheet.headers["Content-Type"].startswith("text/css")


async def test_metrics_come_in_the_prometheus_format(api: Api) -> None:
    answer = await api.get("/metrics")

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")


async def test_no_request_that_the_document_allows_breaks_the_server(api: Api) -> None:
    document = (await api.get("/openapi.json")).json
    schema = schemathesis.openapi.from_dict(document)
    schema.config.base_url = api.url
    loop = asyncio.get_running_loop()
    results: list[Any] = list(schema.get_all_operations())

    def hold_job(answer: Any) -> None:
        # 503: no LMS is set up here.
        assert answer.status_code in (200, 400, 413, 415, 422, 503), answer.text
        assert answer.headers["content-type"] == ["application/json"]
        assert answer.json()["ok"] is (answer.status_code == 200)

    def attack(operation: Any) -> None:
        @settings(
            max_examples=5,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def hold(data: Any) -> None:
            case = data.draw(operation.as_strategy())
            answer = case.call()
            if case.path.startswith("/jobs/"):
                hold_job(answer)
                return
            assert answer.status_code < 500, (case, answer.text)
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == [PROBLEM]
            case.validate_response(answer, checks=[schemathesis.checks.not_a_server_error])

        hold()

    for result in results:
        await loop.run_in_executor(None, attack, result.ok())
