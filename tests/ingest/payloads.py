"""Bodies as Alertmanager, Grafana and GitHub document and send them."""

from __future__ import annotations

from typing import Any

NEVER = "0001-01-01T00:00:00Z"


def alert(
    name: str = "HighLatency",
    status: str = "firing",
    *,
    starts: str = "2026-11-21T01:02:03.123456789Z",
    fingerprint: str | None = None,
    **labels: str,
) -> dict[str, Any]:
    own = {"alertname": name, "severity": "critical", "instance": "db-1:9100", **labels}
    return {
        "status": status,
        "labels": own,
        "annotations": {
            "summary": "p99 이 2 초를 넘었습니다",
            "description": "p99 of db-1 is 2.31 s for 5 minutes.",
            "runbook_url": "https://runbooks.example.com/latency",
        },
        "startsAt": starts,
        "endsAt": NEVER if status == "firing" else "2026-11-21T01:12:03.5Z",
        "generatorURL": "http://prometheus.example.com/graph?g0.expr=up",
        "fingerprint": fingerprint or f"{abs(hash(tuple(sorted(own.items())))):016x}",
    }


def alertmanager(*alerts: dict[str, Any], receiver: str = "allim", **more: Any) -> dict[str, Any]:
    alerts = alerts or (alert(),)
    firing = any(each["status"] == "firing" for each in alerts)
    return {
        "receiver": receiver,
        "status": "firing" if firing else "resolved",
        "alerts": list(alerts),
        "groupLabels": {
            "alertname": alerts[0]["labels"].get("alertname", ""),
            "service": "checkout",
        },
        "commonLabels": {"severity": "critical"},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager.example.com",
        "version": "4",
        "groupKey": '{}:{alertname="HighLatency"}',
        "truncatedAlerts": 0,
        **more,
    }


def grafana(*alerts: dict[str, Any], **more: Any) -> dict[str, Any]:
    own = [
        {
            **each,
            "values": {"B": 44.23943737541908, "C": 1},
            "valueString": "[ var='B' labels={} value=44.239 ]",
            "silenceURL": "https://grafana.example.com/alerting/silence/new?x=1",
            "dashboardURL": "https://grafana.example.com/d/abc",
            "panelURL": "https://grafana.example.com/d/abc?viewPanel=1",
            "imageURL": "",
        }
        for each in alerts or (alert(),)
    ]
    group = alertmanager(*own)
    del group["version"]
    return {
        **group,
        "version": "1",
        "orgId": 1,
        "title": "[FIRING:1] HighLatency checkout",
        "state": "alerting",
        "message": "**Firing**\n\nValue: B=44.2, C=1",
        **more,
    }


REPOSITORY = {
    "id": 1,
    "full_name": "acme/shop",
    "html_url": "https://github.com/acme/shop",
    "default_branch": "main",
}
SENDER = {"login": "kim", "id": 7}


def github(**fields: Any) -> dict[str, Any]:
    return {"repository": REPOSITORY, "sender": SENDER, **fields}


PUSH = github(
    ref="refs/heads/main",
    before="a" * 40,
    after="b" * 40,
    created=False,
    deleted=False,
    forced=False,
    compare="https://github.com/acme/shop/compare/aaaaaaa...bbbbbbb",
    pusher={"name": "kim", "email": "kim@example.com"},
    commits=[
        {
            "id": f"{at}bcdef0123456789",
            "message": f"결제 고침 {at}\n\nlong story",
            "author": {"name": "Kim", "username": "kim"},
        }
        for at in range(12)
    ],
)
PULL_REQUEST = github(
    action="closed",
    number=42,
    pull_request={
        "title": "결제 재시도",
        "merged": True,
        "body": "why",
        "html_url": "https://github.com/acme/shop/pull/42",
        "head": {"ref": "retry"},
        "base": {"ref": "main"},
    },
)
ISSUE = github(
    action="opened",
    issue={
        "number": 7,
        "title": "Checkout is slow",
        "body": "It takes 9 s.",
        "html_url": "https://github.com/acme/shop/issues/7",
    },
)
WORKFLOW_RUN = github(
    action="completed",
    workflow_run={
        "name": "CI",
        "run_number": 118,
        "run_attempt": 2,
        "conclusion": "failure",
        "head_branch": "main",
        "head_sha": "c0ffee" + "0" * 34,
        "head_commit": {"message": "Retry payments\n\nmore"},
        "html_url": "https://github.com/acme/shop/actions/runs/99",
    },
    workflow={"name": "CI"},
)
RELEASE = github(
    action="published",
    release={
        "tag_name": "v1.2.0",
        "name": "Autumn",
        "prerelease": False,
        "body": "Faster.",
        "html_url": "https://github.com/acme/shop/releases/tag/v1.2.0",
    },
)
