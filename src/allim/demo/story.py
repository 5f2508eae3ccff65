"""The scenarios of the demo: three of the hub's specification, one retry, one fallback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from allim.demo.stage import Stage
from allim.testing.http import Answer


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is posted, and what must have become of it."""

    heading: str
    body: Mapping[str, Any]
    ends: str
    """The notification's status in the end."""
    slack_answers: Sequence[Answer] = ()
    """What the Slack server answers to this one; ``ok`` unless said otherwise."""
    remark: str = ""
    template: Mapping[str, Any] | None = None
    """What is stored first; the one that a delivery names."""


def scenarios(stage: Stage) -> Sequence[Scenario]:
    """The scenarios, in their order."""
    return (
        Scenario(
            "An order is complete: the customer gets an e-mail, made from a template",
            {
                "source": "order-service",
                "type": "ORDER_COMPLETED",
                "data": {"name": "김민수", "order_id": "A-1024", "amount": 39_000},
                "deliveries": [
                    {
                        "channel": "EMAIL",
                        "recipient": "minsu@example.com",
                        "template_code": "ORDER_DONE",
                    }
                ],
            },
            "COMPLETED",
            template={
                "code": "ORDER_DONE",
                "channel": "EMAIL",
                "subject": "주문이 완료되었습니다",
                "body": "{{ name }} 고객님, 주문하신 상품(주문번호 {{ order_id }})의 결제가"
                " 완료되었습니다.",
            },
        ),
        Scenario(
            "A payment failed: e-mail to the customer, Slack to the operators",
            {
                "source": "payment-service",
                "type": "PAYMENT_FAILED",
                "title": "결제 실패",
                "message": "카드 승인이 거절되었습니다. 결제 수단을 확인해 주세요.",
                "data": {"order_id": "A-1025", "reason": "한도 초과"},
                "deliveries": [
                    {"channel": "EMAIL", "recipient": "jiyoung@example.com"},
                    {"channel": "SLACK"},
                ],
            },
            "COMPLETED",
        ),
        Scenario(
            "A system is down: Slack to the operators",
            {
                "source": "monitoring",
                "type": "SYSTEM_OUTAGE",
                "title": "시스템 장애",
                "message": "결제 API 서버가 응답하지 않습니다. (오류율 87%)",
                "data": {"service": "payment-api", "error_rate": 0.87},
                "priority": "high",
                "deliveries": [{"channel": "SLACK"}],
            },
            "COMPLETED",
        ),
        Scenario(
            "Slack has a hiccup: the second try arrives",
            {
                "source": "monitoring",
                "type": "SYSTEM_RECOVERED",
                "title": "시스템 복구",
                "message": "결제 API 서버가 정상으로 돌아왔습니다.",
                "deliveries": [{"channel": "SLACK"}],
            },
            "COMPLETED",
            slack_answers=(Answer.of(503, "service_unavailable"), Answer.of(200, "ok")),
            remark="(the demo waits about 1 s between tries; the default is 60 s, then doubling)",
        ),
        Scenario(
            "A partner's webhook refuses: the fallback sends an e-mail",
            {
                "source": "order-service",
                "type": "ORDER_SHIPPED",
                "title": "배송이 시작되었습니다",
                "message": "주문번호 A-1024 상품이 출발했습니다.",
                "deliveries": [
                    {
                        "channel": "WEBHOOK",
                        "recipient": stage.partner.url + "/orders",
                        "fallback": [{"channel": "EMAIL", "recipient": "partner@example.com"}],
                    }
                ],
            },
            "COMPLETED",
            remark="(the webhook stays on record as a dead letter, superseded by the e-mail)",
        ),
    )
