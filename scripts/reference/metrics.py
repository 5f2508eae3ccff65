"""The page of metrics: what the registries hold."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from scripts.reference.page import GENERATED, cell


def metrics_page(registry: CollectorRegistry) -> str:
    """Every metric of ours."""
    lines = [
        "# Metrics\n",
        GENERATED,
        "At `/metrics` of `allim up` and `allim api` (scope `read` once a key exists), and of a"
        " lone `allim relay` where `ALLIM_RELAY_METRICS_PORT` is set. Beside these there are the"
        " usual `process_…` and `python_…`.\n",
        "The backlog (`allim_waiting`, `allim_failed`, `allim_dead`, `allim_oldest_due_seconds`)"
        " is read from the database every 10 s while somebody scrapes; it is the same in every"
        " process, so take `max` and not `sum`. All else is this process's own. **The one to alert"
        " on is `allim_oldest_due_seconds`**: it rises whatever the cause. What each alert asks of"
        " you is in [the runbook](../runbook/alerts.md).\n",
        "| metric | kind | labels | |",
        "| --- | --- | --- | --- |",
    ]
    for metric in registry.collect():
        if metric.name.startswith("allim_"):
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            labels = ", ".join(getattr(metric, "_labelnames", ()))
            lines.append(f"| `{name}` | {metric.type} | {labels} | {cell(metric.documentation)} |")
    return "\n".join(lines) + "\n"
