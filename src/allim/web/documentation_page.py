"""The page that shows the OpenAPI document, without any outside address."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib import resources
from typing import Any

STYLE_PATH = "/docs/style.css"
ORDER = ("notifications", "deliveries", "endpoints", "metrics", "health")
EXAMPLE = """\
curl -s http://127.0.0.1:18080/notifications -H 'Content-Type: application/json' -d '{
  "source": "payment-service", "type": "PAYMENT_FAILED",
  "title": "결제 실패", "message": "카드 승인이 거절되었습니다",
  "deliveries": [{"channel": "EMAIL", "recipient": "kim@example.com"}, {"channel": "SLACK"}]
}'"""


def page(found: Mapping[str, Any]) -> str:
    """The page for an OpenAPI document."""
    operations = [
        (method, path, operation)
        for path, methods in sorted(found["paths"].items(), key=lambda item: _place(item[0]))
        for method, operation in sorted(methods.items(), reverse=True)
    ]
    parts = [_section(*operation) for operation in operations]
    contents = "".join(
        f"<li><a href='#{_anchor(method, path)}'><b class='{method}'>{method.upper()}</b>"
        f" {escape(path)}</a></li>"
        for method, path, _ in operations
    )
    schemas = "".join(
        f"<details id='{escape(name)}'><summary>{escape(name)}</summary>{_fields(schema)}</details>"
        for name, schema in sorted(found["components"]["schemas"].items())
    )
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Allim API</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<link rel='stylesheet' href='{STYLE_PATH}'></head><body>"
        f"<nav><h1>Allim API</h1><ul>{contents}<li><a href='#schemas'>Schemas</a></li></ul></nav>"
        f"<main><p>{escape(found['info']['description'])} The same as "
        "<a href='/openapi.json'>an OpenAPI document</a>.</p>"
        f"<pre>{escape(EXAMPLE)}</pre>"
        f"{''.join(parts)}<h2 id='schemas'>Schemas</h2>{schemas}</main></body></html>"
    )


def style() -> str:
    """The page's stylesheet: from this server, since the page may load nothing from elsewhere."""
    return resources.files("allim.web").joinpath("documentation.css").read_text(encoding="utf-8")


def _place(path: str) -> tuple[int, str]:
    first = path.split("/")[1]
    return (ORDER.index(first) if first in ORDER else len(ORDER), path)


def _anchor(method: str, path: str) -> str:
    return escape(f"{method}-{path.strip('/').replace('/', '-')}").replace("{", "").replace("}", "")


def _section(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parameters = "".join(
        f"<li><code>{escape(p['name'])}</code> ({escape(p['in'])}"
        f"{', required' if p.get('required') else ''}) {escape(p.get('description', ''))}</li>"
        for p in operation.get("parameters", ())
    )
    responses = "".join(
        f"<li>{escape(status)}: {escape(response.get('description', ''))} {_link(response)}</li>"
        for status, response in sorted(operation["responses"].items())
    )
    body = _link(operation.get("requestBody", {}))
    return (
        f"<section id='{_anchor(method, path)}'><h2><b class='{method}'>{method.upper()}</b>"
        f" <code>{escape(path)}</code></h2>"
        f"<p>{escape(operation.get('summary', ''))}</p>"
        f"{f'<p>Body: {body}</p>' if body else ''}"
        f"{f'<ul>{parameters}</ul>' if parameters else ''}"
        f"<details><summary>Answers</summary><ul>{responses}</ul></details>"
        "</section>"
    )


def _link(described: Mapping[str, Any]) -> str:
    for content in described.get("content", {}).values():
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if name:
            return f"<a href='#{escape(name)}'>{escape(name)}</a>"
    return ""


def _fields(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{' *' if name in required else ''}</td>"
        f"<td>{escape(_kind(field))}</td><td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )
    values = ", ".join(map(str, schema.get("enum", ())))
    return f"<p>{escape(schema.get('description', ''))} {escape(values)}</p><table>{rows}</table>"


def _kind(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if "anyOf" in field:
        return " or ".join(_kind(option) for option in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {}))}"
    return str(field.get("format") or field.get("type") or "anything")
