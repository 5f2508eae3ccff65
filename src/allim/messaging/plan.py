"""From a job to the notification that it becomes: which channels, by whose name, in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from allim.base.errors import FieldProblem, InvalidRequest
from allim.channels.alimtalk import NAME as ALIMTALK
from allim.channels.sms import NAME as SMS
from allim.messaging.cancellation import RESERVATION
from allim.messaging.job import MessageJob, MessageMode

TYPE = "MESSAGE"
NO_PF_ID = "no_pf_id"
NO_TEMPLATE = "no_template"

_WORDS = {
    NO_PF_ID: "the tenant has no kakao_pf_id, and SOLAPI_KAKAO_PF_ID is not set",
    NO_TEMPLATE: "the job has no template_id, and SOLAPI_KAKAO_TEMPLATE_ID is not set",
}


@dataclass(frozen=True, slots=True)
class SentBy:
    """By what messages go: a tenant's own, or the settings'; None where there is none."""

    pf_id: str | None = None
    template_id: str | None = None
    sender: str | None = None

    def over(self, defaults: SentBy) -> SentBy:
        """This, and where it has nothing the defaults."""
        return SentBy(
            self.pf_id or defaults.pf_id,
            self.template_id or defaults.template_id,
            self.sender or defaults.sender,
        )


def plan(
    job: MessageJob,
    sent_by: SentBy,
    *,
    source: str,
    queue: str | None = None,
    is_mock: bool = False,
) -> dict[str, Any]:
    """The fields of the job's notification.

    `both` is an Alimtalk delivery with an SMS fallback, so that a report of failure runs it too;
    without a Kakao channel or a template it is an SMS at once, and `data.straight_to_sms` says
    why. `alimtalk` without them is refused, unless it is only printed (`is_mock`). `sent_by` is
    what the tenant and the settings give.

    Raises InvalidRequest.
    """
    template = job.template_id or sent_by.template_id
    missing = [
        reason
        for reason, value in ((NO_PF_ID, sent_by.pf_id), (NO_TEMPLATE, template))
        if not value
    ]
    if job.mode is MessageMode.ALIMTALK and missing and not is_mock:
        places = {NO_PF_ID: "/tenant_id", NO_TEMPLATE: "/template_id"}
        raise InvalidRequest(
            [FieldProblem(places[reason], reason, _WORDS[reason]) for reason in missing]
        )
    data: dict[str, Any] = {"message_mode": job.mode.value}
    if job.job_id is not None:
        data["job_id"] = job.job_id
    if queue is not None:
        data["queue"] = queue
    if job.reservation_id is not None:
        data[RESERVATION] = job.reservation_id
    if job.mode is MessageMode.SMS:
        delivery = _sms(job, sent_by)
    elif missing and job.mode is MessageMode.BOTH:
        data["straight_to_sms"] = "; ".join(_WORDS[reason] for reason in missing)
        delivery = _sms(job, sent_by)
    else:
        delivery = _alimtalk(job, sent_by, template)
        if job.mode is MessageMode.BOTH:
            delivery["fallback"] = [_sms(job, sent_by)]
    fields: dict[str, Any] = {
        "source": source,
        "type": TYPE,
        "message": job.text,
        "data": data,
        "priority": job.priority,
        "deliveries": [delivery],
    }
    for name in ("tenant_id", "scheduled_at", "expires_at"):
        if (value := getattr(job, name)) is not None:
            fields[name] = value
    return fields


def _sms(job: MessageJob, sent_by: SentBy) -> dict[str, Any]:
    own = {
        "sender": sent_by.sender,
        "subject": job.subject,
        "image_id": job.image_id,
        "variables": dict(job.variables),
        "advertising": job.advertising,
    }
    return _delivery(SMS, job, own)


def _alimtalk(job: MessageJob, sent_by: SentBy, template: str | None) -> dict[str, Any]:
    own = {"sender": sent_by.sender, "pf_id": sent_by.pf_id, "variables": dict(job.variables)}
    return {**_delivery(ALIMTALK, job, own), "template_code": template}


def _delivery(channel: str, job: MessageJob, own: Mapping[str, Any]) -> dict[str, Any]:
    payload = {name: value for name, value in own.items() if value}
    delivery: dict[str, Any] = {"channel": channel, "recipient": job.to}
    if payload:
        delivery["payload"] = payload
    if job.reservation_id is not None:
        delivery["guard"] = {RESERVATION: job.reservation_id}
    return delivery
