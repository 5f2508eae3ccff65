"""Channels: how each is set up and fares, a test message, and targets that are disabled."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from starlette.responses import Response

from allim.base.errors import FieldProblem, InvalidRequest, NotFound
from allim.channels.channel import Channel, RecipientKind
from allim.console.fared import fared_in
from allim.console.flash import Flash
from allim.console.forms import Form
from allim.console.page import Page
from allim.console.services import ConsoleServices
from allim.console.visit import Visit
from allim.hub.audit import Entry
from allim.hub.rollups import BreakerView, Rollups, Window
from allim.hub.service import Hub
from allim.relay.tally import DELIVERY

SOURCE = "console"
TYPE = "TEST"
_WITH_TEMPLATE = "ALIMTALK"


def channels_page(services: ConsoleServices) -> Page:
    """The page and what it does."""
    page = Page("channels")
    channels, rollups = services.channels, Rollups(services.database)
    hub = Hub(channels)

    @page.get("/channels")
    async def show(visit: Visit) -> Response:
        return await listing(visit)

    @page.post("/channels/{name}/test")
    async def test(visit: Visit) -> Response:
        name: str = visit.request.path_params["name"]
        if name not in channels:
            raise NotFound("no_channel", visit.t("channels.unknown", name=name))
        sent: list[UUID] = []

        async def run() -> None:
            async with services.database.transaction() as tx:
                created = await hub.notify(
                    tx,
                    source=SOURCE,
                    type=TYPE,
                    title=visit.t("channels.test_title"),
                    message=visit.form.required("message"),
                    deliveries=[_delivery(name, visit)],
                    idempotency_key=f"console-test-{name}-{visit.form.required('nonce')}",
                )
            services.on_commit({name})
            sent.append(created.id)

        entry = Entry(visit.who.name, "channel.test", f"channel {name}")
        try:
            await services.audit.around(entry, run)
        except InvalidRequest as error:
            return await listing(visit, wrong=name, problems=_as_typed(error))
        flash = Flash(visit.t("channels.test_sent", name=name))
        return visit.redirect("/channels", flash, sent=sent[0])

    @page.post("/channels/endpoints/{id:int}/enable")
    async def enable(visit: Visit) -> Response:
        number = visit.number("id")
        return await visit.act(
            "endpoint.enable",
            f"endpoint {number}",
            lambda: services.endpoints.enable(number),
            to="/channels",
            done=visit.t("channels.enabled"),
        )

    async def listing(
        visit: Visit, wrong: str | None = None, problems: Sequence[FieldProblem] = ()
    ) -> Response:
        relays = [relay for relay in await rollups.relays() if relay.alive]
        endpoints = await services.endpoints.list(cursor=visit.cursor)
        return visit.render(
            "channels/show.html",
            status=422 if problems else 200,
            channels=channels,
            kinds={name: _recipient_word(channel) for name, channel in channels.items()},
            fared=fared_in(await rollups.series(Window.HOUR), DELIVERY),
            breakers=_breakers([b for relay in relays for b in relay.breakers]),
            taken={lane for relay in relays for lane in relay.lanes},
            endpoints=endpoints.items,
            following=endpoints.next,
            cursor=visit.cursor,
            sent=_identity(visit.query("sent")),
            nonce=secrets.token_hex(8),
            wrong=wrong,
            this_form=lambda name: visit.form if name == wrong else Form({}),
            problems=problems,
            with_template=_WITH_TEMPLATE,
        )

    return page


def _delivery(name: str, visit: Visit) -> Mapping[str, str]:
    fields = {
        "channel": name,
        "recipient": visit.form.text("recipient"),
        "template_code": visit.form.text("template_code"),
    }
    return {field: value for field, value in fields.items() if value is not None}


def _as_typed(error: InvalidRequest) -> Sequence[FieldProblem]:
    """The same with the names of the form's fields in place of those of the JSON."""
    return [replace(p, place=p.place.rpartition("/")[2]) for p in error.problems]


def _recipient_word(channel: Channel) -> str:
    return f"channels.recipients.{RecipientKind(channel.recipient_kind).value}"


def _breakers(open_ones: Sequence[BreakerView]) -> Mapping[str, Sequence[BreakerView]]:
    """The targets of each channel that are left alone, each once, since it was first."""
    first: dict[tuple[str, str], BreakerView] = {}
    for breaker in sorted(open_ones, key=lambda b: b.since):
        first.setdefault((breaker.lane, breaker.target), breaker)
    by_lane: dict[str, list[BreakerView]] = {}
    for breaker in first.values():
        by_lane.setdefault(breaker.lane, []).append(breaker)
    return by_lane


def _identity(given: str | None) -> UUID | None:
    try:
        return UUID(given) if given else None
    except ValueError:
        return None
