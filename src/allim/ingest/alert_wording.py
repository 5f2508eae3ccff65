"""Alerts as people read them: plain characters, so that any channel can carry them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json

from allim.ingest.alert_states import News, Turn
from allim.ingest.alerts import Alert, AlertGroup
from allim.ingest.report import MESSAGE_LIMIT, TITLE_LIMIT, Report, cut
from allim.ingest.routing import Source

ALERTS_SHOWN = 20
LABELS_SHOWN = 12
DATA_BYTES = 128 * 1024
"""Of alerts, in a notification's data."""

_VALUE, _SUMMARY, _DESCRIPTION = 120, 500, 1500
_LINKS = {
    "runbook_url": "runbook",
    "dashboard_url": "dashboard",
}


def report_of(source: Source, group: AlertGroup, news: Sequence[News]) -> Report:
    """One telling of those alerts of a group that are news."""
    firing = any(each.turn is not Turn.RESOLVED for each in news)
    return Report(
        source=source,
        type="ALERT_FIRING" if firing else "ALERT_RESOLVED",
        title=cut(_title(group, news), TITLE_LIMIT),
        message=cut("\n\n".join(_paragraphs(group, news)), MESSAGE_LIMIT),
        data=_data(group, news),
    )


def _title(group: AlertGroup, news: Sequence[News]) -> str:
    turns = Counter(each.turn for each in news)
    counts = ", ".join(f"{turn} {turns[turn]}" for turn in Turn if turns[turn])
    names = list(dict.fromkeys(each.alert.name for each in news))
    named = names[0] if len(names) == 1 else f"{names[0]} + {len(names) - 1}"
    shared = {k: v for k, v in group.group_labels.items() if k != "alertname"}
    if len(news) == 1:
        shared = {k: v for k, v in news[0].alert.labels.items() if k == "severity"} | shared
    return f"[{counts}] {named} {_labels(shared)}".rstrip()


def _paragraphs(group: AlertGroup, news: Sequence[News]) -> Iterator[str]:
    for each in news[:ALERTS_SHOWN]:
        yield "\n".join(_lines(each))
    left = len(news) - ALERTS_SHOWN
    if left > 0:
        yield f"+ {left} more"
    if group.truncated > 0:
        yield f"+ {group.truncated} that {group.receiver} left out"


def _lines(news: News) -> Iterator[str]:
    alert = news.alert
    labels = {k: v for k, v in alert.labels.items() if k != "alertname"}
    yield f"{news.turn} {alert.name} {_labels(labels)}".rstrip()
    notes = alert.annotations
    yield from dict.fromkeys(
        cut(text.strip(), limit)
        for text, limit in (
            (notes.get("summary", ""), _SUMMARY),
            (notes.get("description") or notes.get("message", ""), _DESCRIPTION),
        )
        if text.strip()
    )
    if alert.values:
        yield cut(
            ", ".join(f"{k} = {_value(v)}" for k, v in sorted(alert.values.items())), _SUMMARY
        )
    yield f"{_time(alert.starts_at)}{_end(news)}"
    yield from _links(alert)


def _end(news: News) -> str:
    if news.turn is not Turn.RESOLVED:
        return " -"
    try:
        ended = datetime.fromisoformat(news.alert.ends_at)
    except ValueError:
        return " -"
    if ended.tzinfo is None or ended.year < 1970:
        return " -"
    return f" - {_time(ended)}"


def _links(alert: Alert) -> Iterator[str]:
    links = {
        **{word: alert.annotations.get(name, "") for name, word in _LINKS.items()},
        "source": alert.generator_url,
        "panel": alert.panel_url,
        "silence": alert.silence_url,
    }
    links["dashboard"] = alert.dashboard_url or links["dashboard"]
    for word, url in links.items():
        if url.startswith(("http://", "https://")) and len(url) <= 2000:
            yield f"{word}: {url}"


def _labels(labels: Mapping[str, str]) -> str:
    ordered = sorted(labels.items(), key=lambda pair: (pair[0] != "severity", pair[0]))
    shown = [f"{name}={cut(value, _VALUE)}" for name, value in ordered[:LABELS_SHOWN]]
    return " ".join(shown) + (" ..." if len(ordered) > LABELS_SHOWN else "")


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _data(group: AlertGroup, news: Sequence[News]) -> dict[str, Any]:
    alerts: list[dict[str, Any]] = []
    size = 0
    for each in news:
        told = _alert_data(each)
        size += len(to_json(told))
        if size > DATA_BYTES:
            break
        alerts.append(told)
    group_data = {
        "receiver": group.receiver,
        "status": group.status.value,
        "group_labels": group.group_labels,
        "common_labels": group.common_labels,
        "common_annotations": group.common_annotations,
        "external_url": group.external_url,
        **group.extra(),
    }
    if len(to_json(group_data)) > DATA_BYTES:
        group_data = {"receiver": group.receiver, "status": group.status.value}
    left_out = len(news) - len(alerts) + max(group.truncated, 0)
    return {**group_data, "alerts": alerts, "alerts_left_out": left_out}


def _alert_data(news: News) -> dict[str, Any]:
    alert = news.alert
    told = {
        "turn": news.turn.value,
        "status": alert.status.value,
        "name": alert.name,
        "labels": alert.labels,
        "annotations": alert.annotations,
        "starts_at": alert.starts_at.isoformat(),
        "ends_at": alert.ends_at,
        "fingerprint": alert.fingerprint,
        "generator_url": alert.generator_url,
        "values": alert.values,
        "value_string": alert.value_string,
        "silence_url": alert.silence_url,
        "dashboard_url": alert.dashboard_url,
        "panel_url": alert.panel_url,
        "image_url": alert.image_url,
    }
    return {name: value for name, value in told.items() if value}
