"""HTTP routes of templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Response

from allim.base.errors import FieldProblem, InvalidRequest
from allim.channels.channel import Channel
from allim.hub.model import ChannelName, Language
from allim.hub.reading import PAGE_LIMIT
from allim.hub.templates.book import TemplateBook
from allim.hub.templates.model import (
    Code,
    PreviewRequest,
    PreviewView,
    TemplateRequest,
    TemplateView,
    Version,
)
from allim.hub.views import Page
from allim.web.access import AccessScope, Principal, requires
from allim.web.bodies import only_json

Reading = Annotated[Principal, Depends(requires(AccessScope.READ))]
Operating = Annotated[Principal, Depends(requires(AccessScope.OPERATE))]
CodePath = Annotated[Code, Path()]
ChannelQuery = Annotated[ChannelName | None, Query()]
LanguageQuery = Annotated[Language | None, Query()]
Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT)]
Cursor = Annotated[str | None, Query(max_length=100)]
JSON_BODY = Depends(only_json)


def template_routes(book: TemplateBook, channels: Mapping[str, Channel]) -> APIRouter:
    """Templates: a new version, listings, what would be sent, out of use."""
    router = APIRouter(prefix="/templates", tags=["templates"])

    @router.get("", summary="The newest version of each template, newest first")
    async def list_templates(
        principal: Reading,
        channel: ChannelQuery = None,
        language: LanguageQuery = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Page[TemplateView]:
        return await book.list(
            own=principal.tenant_id, channel=channel, language=language, limit=limit, cursor=cursor
        )

    @router.post(
        "",
        status_code=201,
        summary="A new version of a template; 200 where the newest is the same already",
        responses={200: {"model": TemplateView, "description": "Nothing is new"}},
        dependencies=[JSON_BODY],
    )
    async def add(
        body: Annotated[TemplateRequest, Body()], principal: Operating, response: Response
    ) -> TemplateView:
        if body.channel not in channels:
            known = ", ".join(sorted(channels))
            words = f"must be one of: {known}"
            raise InvalidRequest([FieldProblem("/channel", "unknown_channel", words)])
        tenant = _tenant(body.tenant_id, principal)
        view, is_new = await book.add(body, tenant=tenant, actor=principal.name)
        response.status_code = 201 if is_new else 200
        return view

    @router.get("/{code}", summary="All versions of a template, newest first")
    async def versions(
        code: CodePath,
        principal: Reading,
        channel: ChannelQuery = None,
        language: LanguageQuery = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Page[TemplateView]:
        return await book.versions(
            code,
            own=principal.tenant_id,
            channel=channel,
            language=language,
            limit=limit,
            cursor=cursor,
        )

    @router.post(
        "/{code}/preview", summary="What would be sent; nothing is", dependencies=[JSON_BODY]
    )
    async def preview(
        code: CodePath, body: Annotated[PreviewRequest, Body()], principal: Reading
    ) -> PreviewView:
        tenant = _tenant(body.tenant_id, principal)
        return await book.preview(code, body, tenant, channels.get(body.channel))

    @router.delete(
        "/{code}", status_code=204, summary="Use a template no more: all of it, or what is named"
    )
    async def deactivate(
        code: CodePath,
        principal: Operating,
        channel: ChannelQuery = None,
        language: LanguageQuery = None,
        version: Annotated[Version | None, Query()] = None,
    ) -> None:
        await book.deactivate(
            code,
            own=principal.tenant_id,
            channel=channel,
            language=language,
            version=version,
            actor=principal.name,
        )

    return router


def _tenant(asked: int | None, principal: Principal) -> int | None:
    own = principal.tenant_id
    if own is not None and asked not in (None, own):
        raise InvalidRequest(
            [FieldProblem("/tenant_id", "tenant_mismatch", "is not the tenant of the API key")]
        )
    return asked if own is None else own
