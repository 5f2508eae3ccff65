"""The page of statuses: what the enumerations and the schema allow, with its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from allim.enrolment.model import RunStatus
from allim.events.views import EventStatus
from allim.hub.status import DeliveryStatus, NotificationStatus
from allim.relay.outcomes import OutcomeKind
from allim.scheduler.fires import FireStatus
from scripts.reference.page import GENERATED

DELIVERY = {
    "PENDING": "waits to be claimed: new, scheduled, or snoozed (then `error_code` says why and"
    " `next_retry_at` until when)",
    "PROCESSING": "a relay has it; that is a lease, and it runs out",
    "SUCCESS": "the other side took it. A code says where that was not a call: `mock`,"
    " `not_configured`",
    "ACCEPTED": "the provider took it and will report",
    "FAILED": "failed, and **will be tried again** at `next_retry_at`",
    "DEAD": "the dead letter: it will not be tried again by itself",
    "SKIPPED": "a rule decided against sending; nothing was called",
    "HELD": "nobody knows whether it arrived, and its channel must not send twice: yours to decide",
    "CANCELED": "called off, or discarded",
    "EXPIRED": "its `expires_at` passed before it could be sent",
}
NOTIFICATION = {
    "CANCELED": "all are CANCELED",
    "EXPIRED": "all are EXPIRED",
    "PENDING": "all are PENDING, and none was ever tried",
    "PROCESSING": "any is PENDING, PROCESSING, FAILED, ACCEPTED or HELD",
    "SKIPPED": "all are SKIPPED",
    "FAILED": "none is SUCCESS",
    "PARTIALLY_FAILED": "SUCCESS stands beside DEAD, CANCELED or EXPIRED",
    "COMPLETED": "else",
}
OUTCOMES = {
    "DELIVERED": "it arrived, or was not needed (`mock`, `not_configured`, `duplicate`)",
    "ACCEPTED": "the provider took it; a report will tell",
    "RETRY": "the other side failed; spends one of `max_attempts`",
    "REFUSED": "it will never work as it is: a dead letter",
    "SNOOZED": "not now: no call was made, nothing is spent",
    "SKIPPED": "it must not be sent any more; no call was made",
    "FAULT": "our own fault: nothing is spent",
    "UNKNOWN": "cut short: nobody can say whether it arrived",
    "RELEASED": "the relay stopped before the call: nothing is spent",
}
EVENT = {
    "PENDING": "waits to be published, or for an earlier message of its key",
    "SENT": "the broker has acknowledged it",
    "FAILED": "failed, and will be tried again at `next_retry_at`; its key waits for it",
    "DEAD": "tried as often as may be; its key goes on, or waits with `OUTBOX_ON_DEAD=block`",
    "DISCARDED": "an operator gave it up; its key goes on",
}
RUN = {
    "RUNNING": "under way, under the lock of its category",
    "SUCCESS": "every course was looked at; `error_message` says where rows were left out",
    "FAILED": "one course or more failed; the others are stored and counted",
}
FIRE = {
    "QUEUED": "asked for, or given back; the next scheduler takes it",
    "RUNNING": "its job runs",
    "SUCCESS": "its job has done its work",
    "FAILED": "its job failed; the next slot is another fire",
    "SKIPPED": "the fire before was still running",
    "MISSED": "nobody came to it in ten minutes",
}


def statuses_page() -> str:
    """Every status there is."""
    return "\n".join(
        [
            "# Statuses\n",
            GENERATED,
            "## Delivery\n",
            "![Every state of a delivery, and what leads from one to another]"
            "(../pictures/delivery-states.svg)\n",
            *_table("status", "means", DELIVERY, [each.value for each in DeliveryStatus]),
            "A rescue (the lease ran out) leaves a delivery in PROCESSING, under a new claim. One"
            " that is born to a cancelled notification is CANCELED from the start.\n",
            "## Notification\n",
            "Never stored: computed from the deliveries that nothing superseded (a dead one with a"
            " fallback is superseded by it). The first rule that fits:\n",
            *_table("status", "if", NOTIFICATION, [each.value for each in NotificationStatus]),
            "## Outcomes of attempts\n",
            "`finished_at` is empty while the call is under way.\n",
            *_table("outcome", "means", OUTCOMES, [each.value for each in OutcomeKind]),
            "## Events\n",
            "![Every state of an event](../pictures/event-states.svg)\n",
            *_table("status", "means", EVENT, [each.value for each in EventStatus]),
            "## Runs of the sync\n",
            *_table("status", "means", RUN, [each.value for each in RunStatus]),
            "## Fires of a schedule\n",
            *_table("status", "means", FIRE, [each.value for each in FireStatus]),
        ]
    )


def _table(head: str, more: str, words: Mapping[str, str], values: Sequence[str]) -> Sequence[str]:
    if set(words) != set(values):
        wrong = ", ".join(sorted(set(words) ^ set(values)))
        raise SystemExit(f"{__file__}: words and statuses differ: {wrong}")
    rows = [f"| {value} | {told} |" for value, told in words.items()]
    return [f"| {head} | {more} |", "| --- | --- |", *rows, ""]
