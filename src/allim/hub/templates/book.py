"""The templates of a database: written, listed, shown, deactivated."""

from __future__ import annotations

import asyncio
from typing import Any, LiteralString

from allim.base.errors import Conflict, FieldProblem, InvalidRequest, NotFound
from allim.channels.channel import Channel, Draft
from allim.database.pool import Database
from allim.hub import audit, cursors
from allim.hub.templates.model import PreviewRequest, PreviewView, TemplateRequest, TemplateView
from allim.hub.templates.naming import Named, NotStored
from allim.hub.templates.rendering import (
    BLOCKS_CHANNELS,
    HTML_CHANNELS,
    NO_INLINER,
    TEXT_CHANNELS,
    Compiled,
    Occasion,
    UnusableTemplate,
    has_inliner,
)
from allim.hub.templates.shelf import SQL, TemplateShelf, parts_of
from allim.hub.views import Page

_TRIES = 10


class TemplateBook:
    """What people do with templates. `own` is the tenant of a caller who may see one only."""

    def __init__(self, database: Database, shelf: TemplateShelf) -> None:
        self._database = database
        self._shelf = shelf

    async def add(
        self, request: TemplateRequest, *, tenant: int | None, actor: str
    ) -> tuple[TemplateView, bool]:
        """Store a new version; False where the newest one is the same already.

        Raises InvalidRequest with every problem of its texts.
        """
        parts = parts_of(request)
        # In a thread: a large template is compiled for a second.
        await asyncio.to_thread(_check, request)
        digest = parts.digest(request.channel)
        key = {
            "tenant": tenant,
            "code": request.code,
            "channel": request.channel,
            "language": request.language or "",
        }
        for _ in range(_TRIES):
            async with self._database.transaction() as tx:
                rows = await (await tx.execute(_statement("newest"), key)).fetchall()
                newest = TemplateView.model_validate(rows[0][0]) if rows else None
                if newest is not None and newest.active and rows[0][1] == digest:
                    return newest, False
                fields = {
                    **key,
                    "version": 1 + (newest.version if newest is not None else 0),
                    "subject": parts.subject,
                    "body": parts.body,
                    "html": parts.html,
                    "blocks": parts.blocks,
                    "digest": digest,
                    "description": request.description,
                    "created_by": actor,
                }
                rows = await (await tx.execute(_statement("add"), fields)).fetchall()
                if rows:
                    added = TemplateView.model_validate(rows[0][0])
                    await audit.record(
                        tx,
                        actor=actor,
                        action="template.add",
                        subject=f"template {added.code}",
                        tenant=tenant,
                        detail={
                            "channel": added.channel,
                            "language": added.language,
                            "version": added.version,
                        },
                    )
                    return added, True
        raise Conflict("busy", f"others are writing the template {request.code!r} just now")

    async def list(
        self,
        *,
        own: int | None = None,
        channel: str | None = None,
        language: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[TemplateView]:
        """The newest version of each template, newest first. Raises InvalidCursor."""
        return await self._page("list", limit, cursor, own, channel=channel, language=language)

    async def versions(
        self,
        code: str,
        *,
        own: int | None = None,
        channel: str | None = None,
        language: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[TemplateView]:
        """All versions of one code, newest first. Raises NotFound, InvalidCursor."""
        page = await self._page(
            "versions", limit, cursor, own, code=code, channel=channel, language=language
        )
        if not page.items and cursor is None:
            raise _not_found(code)
        return page

    async def deactivate(
        self,
        code: str,
        *,
        own: int | None = None,
        channel: str | None = None,
        language: str | None = None,
        version: int | None = None,
        actor: str,
    ) -> int:
        """Let versions be used no more; how many. Raises NotFound where there is none in use."""
        async with self._database.transaction() as tx:
            cursor = await tx.execute(
                SQL["deactivate"],
                {
                    "code": code,
                    "tenant": own,
                    "channel": channel,
                    "language": language,
                    "version": version,
                },
            )
            count = len(await cursor.fetchall())
            if not count:
                raise _not_found(code)
            await audit.record(
                tx,
                actor=actor,
                action="template.deactivate",
                subject=f"template {code}",
                tenant=own,
                detail={
                    "channel": channel,
                    "language": language,
                    "version": version,
                    "count": count,
                },
            )
        return count

    async def preview(
        self, code: str, request: PreviewRequest, tenant: int | None, channel: Channel | None
    ) -> PreviewView:
        """What would be sent. Raises NotFound, and InvalidRequest with all that is wrong."""
        named = Named(request.channel, code, request.language, request.version)
        found = (await self._shelf.find(self._database, {(tenant, named)}))[tenant, named]
        if isinstance(found, NotStored):
            raise _not_found(code)
        occasion = Occasion(
            source=request.source,
            type=request.type,
            title=request.title,
            message=request.message,
            recipient=request.recipient,
            data=request.data,
            payload=request.payload,
        )
        rendered = await asyncio.to_thread(found.render, occasion)
        if isinstance(rendered, list):
            raise InvalidRequest(rendered)
        title = request.title if rendered.title is None else rendered.title
        message = request.message if rendered.message is None else rendered.message
        payload = rendered.over(request.payload)
        if channel is not None:
            draft = Draft(request.recipient, title, message, code, payload, tenant)
            problems = [p for p in channel.check(draft) if request.recipient or _of_words(p)]
            if problems:
                raise InvalidRequest(problems)
        return PreviewView(
            code=code,
            channel=found.channel,
            language=found.language or None,
            version=found.version,
            title=title,
            message=message,
            payload=payload,
        )

    async def _page(
        self, name: str, limit: int, cursor: str | None, own: int | None, **filters: Any
    ) -> Page[TemplateView]:
        rows = await self._database.fetch(
            _statement(name),
            {
                "before": cursors.read_delivery_cursor(cursor) if cursor else None,
                "tenant": own,
                "limit": limit + 1,
                **filters,
            },
        )
        items = [TemplateView.model_validate(row[0]) for row in rows]
        more = len(items) > limit
        items = items[:limit]
        return Page(items=items, next=cursors.delivery_cursor(items[-1].id) if more else None)


def _of_words(problem: FieldProblem) -> bool:
    """A preview may name nobody, and Alimtalk's sender is not the template's business."""
    return problem.place != "/recipient"


def _check(request: TemplateRequest) -> None:
    problems: list[FieldProblem] = []
    for part, channels in (("html", HTML_CHANNELS), ("blocks", BLOCKS_CHANNELS)):
        if getattr(request, part) is not None and request.channel not in channels:
            words = f"is for {', '.join(sorted(channels))} only"
            problems.append(FieldProblem(f"/{part}", "not_of_channel", words))
    if request.channel in TEXT_CHANNELS and request.body is None:
        words = "needs the text that Kakao approved, with its #{name}"
        problems.append(FieldProblem("/body", "missing", words))
    if request.channel in TEXT_CHANNELS and request.subject is not None:
        words = "cannot be shown: Kakao shows the approved text only"
        problems.append(FieldProblem("/subject", "not_of_channel", words))
    if request.html is not None and not has_inliner():
        problems.append(FieldProblem("/html", "not_configured", NO_INLINER))
    try:
        Compiled.of(request.channel, parts_of(request))
    except UnusableTemplate as error:
        problems += error.problems
    if problems:
        raise InvalidRequest(problems)


def _not_found(code: str) -> NotFound:
    return NotFound("template_not_found", f"there is no such template {code!r}")


def _statement(name: str) -> LiteralString:
    return SQL[name].replace("{template}", SQL["template_json"])
