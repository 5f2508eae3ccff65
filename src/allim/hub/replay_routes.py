"""HTTP routes of replays."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response

from allim.base.errors import FieldProblem, InvalidRequest
from allim.hub.channel_names import require_known
from allim.hub.model import MAX_BIGINT
from allim.hub.reading import PAGE_LIMIT
from allim.hub.redaction import shown_replay
from allim.hub.replays import ReplayRequest, Replays
from allim.hub.views import Page, ReplayCountView, ReplayView
from allim.web.access import AccessScope, Principal, requires
from allim.web.bodies import only_json

CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"description": "Its state does not allow it; `code` says why"}
}
Id = Annotated[int, Path(ge=1, le=MAX_BIGINT)]
Reading = Annotated[Principal, Depends(requires(AccessScope.READ))]
Operating = Annotated[Principal, Depends(requires(AccessScope.OPERATE))]


def replay_routes(replays: Replays, channels: Collection[str]) -> APIRouter:
    """Create, look at, pause, resume and cancel; `channels` are those there is any of."""
    router = APIRouter(prefix="/replays", tags=["replays"])

    @router.post(
        "",
        status_code=202,
        summary="Send dead letters again by a filter, or count them first",
        dependencies=[Depends(only_json)],
        response_model=ReplayView,
        responses={200: {"model": ReplayCountView, "description": "With `dry_run`: the count"}},
    )
    async def create(
        body: ReplayRequest, principal: Operating, response: Response
    ) -> ReplayView | Response:
        tenant = _tenant(body, principal)
        require_known(body.filter.channel, channels, "/filter/channel")
        if body.dry_run:
            counted = await replays.count(body.filter, tenant)
            return Response(counted.model_dump_json(), media_type="application/json")
        job = await replays.create(body, tenant=tenant, by=principal.name)
        response.headers["Location"] = f"/replays/{job.id}"
        return job

    @router.get("", summary="List replays, newest first")
    async def list_replays(
        principal: Reading,
        limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT)] = 50,
        cursor: Annotated[str | None, Query(max_length=100)] = None,
    ) -> Page[ReplayView]:
        found = await replays.list(principal.tenant_id, limit=limit, cursor=cursor)
        return found.each(lambda each: shown_replay(each, principal))

    @router.get("/{replay_id}", summary="How far a replay is")
    async def show(replay_id: Id, principal: Reading) -> ReplayView:
        return shown_replay(await replays.one(replay_id, principal.tenant_id), principal)

    @router.post("/{replay_id}/pause", summary="Let no further step begin", responses=CONFLICT)
    async def pause(replay_id: Id, principal: Operating) -> ReplayView:
        return await replays.pause(replay_id, tenant=principal.tenant_id, by=principal.name)

    @router.post("/{replay_id}/resume", summary="Go on where it was paused", responses=CONFLICT)
    async def resume(replay_id: Id, principal: Operating) -> ReplayView:
        return await replays.resume(replay_id, tenant=principal.tenant_id, by=principal.name)

    @router.post("/{replay_id}/cancel", summary="End it where it is", responses=CONFLICT)
    async def cancel(replay_id: Id, principal: Operating) -> ReplayView:
        return await replays.cancel(replay_id, tenant=principal.tenant_id, by=principal.name)

    return router


def _tenant(body: ReplayRequest, principal: Principal) -> int | None:
    own = principal.tenant_id
    if own is None:
        return body.tenant_id
    if body.tenant_id not in (None, own):
        raise InvalidRequest(
            [FieldProblem("/tenant_id", "tenant_mismatch", "is not the tenant of the API key")]
        )
    return own
