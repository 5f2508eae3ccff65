"""What `allim trace` prints."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from allim.base.visible import visible
from allim.cli.moments import when
from allim.messaging.tracing import TracedAttempt, TracedDelivery, TraceView

COLOURS = {
    "SUCCESS": "green",
    "ACCEPTED": "green",
    "DEAD": "red",
    "FAILED": "yellow",
    "HELD": "yellow",
    "SKIPPED": "yellow",
    "CANCELED": "yellow",
    "EXPIRED": "yellow",
}

WHY = {
    "insufficient_balance": "테넌트 잔액이 부족해 보내지 않았습니다",
    "unknown_tenant": "등록되지 않은 테넌트입니다",
    "reservation_cancelled": "예약이 취소되어 보내지 않았습니다",
    "cancellation_check_failed": "예약 취소 여부를 확인하지 못해 기다립니다",
    "suppressed": "수신거부 번호입니다",
    "unsubscribed": "이 목록을 수신거부했습니다",
    "quiet_hours": "광고는 21시부터 8시까지 보낼 수 없어 아침을 기다립니다",
    "receipt_failed": "통신사 또는 카카오가 전달 실패로 보고했습니다",
    "mock": "모의 발송입니다: 실제로 보내지 않았습니다",
    "not_configured": "Solapi 키가 없어 보내지 않았습니다",
    "circuit_open": "Solapi 장애로 잠시 기다립니다",
    "expired": "유효 시간이 지나 보내지 않았습니다",
}
"""What operators tell the customer."""


def print_trace(view: TraceView, console: Console | None = None) -> None:
    """Print it, oldest first, times in Korea."""
    # Soft wrapped: a line that is piped into another program stays one line.
    out = console or Console(highlight=False, soft_wrap=True)
    if not (view.deliveries or view.refused_jobs or view.suppressions):
        _print(out, f"{view.recipient}: nothing was ever sent, queued or refused")
        return
    count = len(view.deliveries)
    word = "delivery" if count == 1 else "deliveries"
    _print(out, f"{view.recipient}: {count} {word}")
    for suppression in view.suppressions:
        whose = (
            "every tenant" if suppression.tenant_id is None else f"tenant {suppression.tenant_id}"
        )
        _print(
            out,
            f"  수신거부: {whose}, since {when(suppression.created_at)} {suppression.reason or ''}",
        )
    for delivery in view.deliveries:
        _print_delivery(out, delivery)
    for job in view.refused_jobs:
        _print(
            out,
            f"{when(job.created_at)}  refused job {job.job_id or job.message_id}: {job.reason}",
        )


def _print_delivery(out: Console, delivery: TracedDelivery) -> None:
    head = Text(f"{when(delivery.created_at)}  #{delivery.id} {delivery.channel} ")
    head.append(delivery.status, style=COLOURS.get(delivery.status, ""))
    if delivery.step == "fallback":
        head.append("  (fallback)")
    if delivery.charged:
        head.append(f"  {delivery.charged} KRW")
    out.print(head)
    for words in (
        _pair("tenant", delivery.tenant_id),
        _pair("job", delivery.job_id),
        _pair("reservation", delivery.reservation_id),
        _pair("group", delivery.group_id),
        _pair("message", delivery.message_id),
        _pair("receipt", delivery.receipt_status),
        _pair("straight to SMS", delivery.straight_to_sms),
        _pair("next try", delivery.next_retry_at and when(delivery.next_retry_at)),
        _pair("why", _why(delivery.error_code, delivery.last_error)),
    ):
        if words:
            _print(out, f"    {words}")
    for attempt in delivery.attempts:
        _print(out, f"    {_attempt(attempt)}")


def _print(out: Console, line: str) -> None:
    out.print(visible(line), markup=False)


def _attempt(attempt: TracedAttempt) -> str:
    words = [
        f"try {attempt.attempt_no} {when(attempt.started_at)}",
        attempt.outcome or "under way",
    ]
    if attempt.http_status:
        words.append(f"HTTP {attempt.http_status}")
    if attempt.group_id:
        words.append(f"group {attempt.group_id}")
    if attempt.receipt_status:
        words.append(f"receipt {attempt.receipt_status}")
    if reason := _why(attempt.error_code, attempt.error):
        words.append(reason)
    return "  ".join(words)


def _why(code: str | None, detail: str | None) -> str | None:
    if code is None:
        return detail
    told = WHY.get(code, detail or "")
    return f"{code}: {told}" if told else code


def _pair(name: str, value: object) -> str | None:
    return None if value is None else f"{name}: {value}"
