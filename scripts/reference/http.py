"""The page of the HTTP API: what its OpenAPI document says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scripts.reference.page import GENERATED, cell

METHODS = ("get", "post", "put", "patch", "delete")
HIDDEN = frozenset({"limit", "cursor", "traceparent"})
"""Parameters that are told of once, at the top."""

Schema = Mapping[str, Any]


def http_page(openapi: Mapping[str, Any]) -> str:
    """Every route with what it takes and answers, and the fields of each body."""
    schemas: Mapping[str, Schema] = openapi["components"]["schemas"]
    lines = [
        "# HTTP API\n",
        GENERATED,
        "A running Allim shows the same for its version at `/docs`, a page to be read, and at"
        " `/openapi.json`, for tools. Once there are keys both need one, as every route does, of"
        " any scope: `curl http://127.0.0.1:18080/docs -H 'Authorization: Bearer allim_…' -o"
        " api.html`."
        " Errors are `application/problem+json` (RFC 9457) with a stable"
        " [`code`](errors.md#problems) and, in `errors`, every wrong field with its place."
        " Listings take `limit` (≤ 250) and"
        ' `cursor`, and answer `{"items": […], "next": …}`. Bodies are JSON of 256 KiB at most'
        " (bulk: more, see there). A `traceparent` header is carried to every attempt.\n",
    ]
    parts: dict[str, list[str]] = {}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            if method in METHODS:
                tag = (operation.get("tags") or ["other"])[-1]
                row = _route(f"{method.upper()} {path}", operation, schemas)
                parts.setdefault(tag, []).append(row)
    for tag, rows in parts.items():
        lines += [
            f"## {tag.capitalize()}\n",
            "| route | does | takes | answers |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    lines += ["## Bodies\n"]
    shown = sorted(_named(openapi["paths"], schemas))
    for name in shown:
        lines += [f"### {name}\n", *_fields(schemas[name], shown), ""]
    return "\n".join(lines)


def _route(route: str, operation: Mapping[str, Any], schemas: Mapping[str, Schema]) -> str:
    takes = []
    for parameter in operation.get("parameters", ()):
        if parameter["in"] != "path" and parameter["name"] not in HIDDEN:
            star = "\\*" if parameter.get("required") else ""
            words = f" ({parameter['in']})" if parameter["in"] == "header" else ""
            takes.append(f"`{parameter['name']}`{star}{words}")
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        takes.insert(0, _link(_short(body["schema"]), schemas))
    answers = []
    for status, answer in operation.get("responses", {}).items():
        if status.startswith("2"):
            schema = answer.get("content", {}).get("application/json", {}).get("schema")
            named = f" {_link(_short(schema), schemas)}" if schema else ""
            answers.append(f"{status}{named}")
    does = cell(str(operation.get("summary", "")))
    return f"| `{route}` | {does} | {', '.join(takes)} | {', '.join(answers)} |"


def _named(value: Any, schemas: Mapping[str, Schema]) -> set[str]:
    """Every schema of an object that is reached from here; pages of listings are not shown."""
    found: set[str] = set()
    waiting = list(_references(value))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _references(schemas[name])
    return {n for n in found if "properties" in schemas[n] and "Page_" not in n}


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        reference = value.get("$ref")
        if isinstance(reference, str):
            yield reference.rpartition("/")[2]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _fields(schema: Schema, shown: list[str]) -> Iterator[str]:
    if words := cell(schema.get("description", "")):
        yield f"{words}\n"
    yield "| field | is | |"
    yield "| --- | --- | --- |"
    required = set(schema.get("required", ()))
    for name, field in schema["properties"].items():
        star = "\\*" if name in required else ""
        default = field.get("default")
        words = cell(field.get("description", ""))
        if default not in (None, "", [], {}):
            words = f"{words}{'. ' if words else ''}Default `{default}`"
        yield f"| `{name}`{star} | {_linked(_short(field), shown)} | {words} |"
    if required:
        yield "\n\\* must be there"


def _short(schema: Schema | None) -> str:
    """A schema in a few words."""
    if not schema:
        return "any"
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            words = [_short(one) for one in schema[choice]]
            return " or ".join(dict.fromkeys(word for word in words if word != "null"))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        limit = f", {schema['maxItems']} at most" if "maxItems" in schema else ""
        return f"list of {_short(schema.get('items'))}{limit}"
    if kind == "string":
        if "format" in schema:
            return str(schema["format"])
        return f"text ≤ {schema['maxLength']}" if "maxLength" in schema else "text"
    if kind in ("integer", "number"):
        least: float | None = schema.get("minimum")
        most: float | None = schema.get("maximum")
        if least is not None and most is not None and most < 2**53:
            return f"{kind} {least:g}–{most:g}"
        return kind
    return kind


def _link(words: str, schemas: Mapping[str, Schema]) -> str:
    if words.startswith(("Page_", "EventPage_")):
        return f"page of {_link(words.partition('_')[2].rstrip('_'), schemas)}"
    return _linked(words, [name for name in schemas if "properties" in schemas[name]])


def _linked(words: str, shown: list[str]) -> str:
    parts = [
        f"[{part}](#{part.lower()})" if part in shown else part for part in cell(words).split(" ")
    ]
    return " ".join(parts)
