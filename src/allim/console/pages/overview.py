"""What is stuck, why, and what mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import to_json
from starlette.responses import Response

from allim.console.charts import charts_of
from allim.console.durations import LATE_SECONDS, STUCK_SECONDS, duration
from allim.console.page import Page
from allim.console.services import ConsoleServices
from allim.console.standing import MOST, ChannelStanding, EventStanding, Standing, Troubles
from allim.console.visit import SECURITY_HEADERS, Visit
from allim.enrolment.runs import RunFilter
from allim.hub.dead_letters import DeadLetters, Group
from allim.hub.rollups import RelayView, Rollups, Window
from allim.relay.tally import EVENTS

_RUNS = 5
_COMPARED = 1000
"""Dead letters of a group that are counted to find the largest: this is asked every few seconds."""
_WINDOWS = {window.word: window for window in Window}


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that wants somebody: in words, where it is mended, and by what."""

    bad: bool
    text: str
    to: str
    mend: str


@dataclass(frozen=True, slots=True)
class State:
    """Everything on the page but the charts."""

    channels: Sequence[ChannelStanding]
    events: EventStanding
    troubles: Troubles
    relays: Sequence[RelayView]

    @property
    def oldest(self) -> float | None:
        """The age of the oldest work that is due, of both boxes."""
        ages = [*(channel.oldest for channel in self.channels), self.events.oldest]
        return max((age for age in ages if age is not None), default=None)

    @property
    def due(self) -> int:
        """What is due now, of both boxes."""
        return sum(c.due for c in self.channels) + self.events.ready

    @property
    def dead(self) -> int:
        """Dead letters of both boxes, with what is held."""
        return sum(c.dead + c.held for c in self.channels) + self.events.dead

    @property
    def alive(self) -> Sequence[RelayView]:
        """Relays that beat."""
        return [relay for relay in self.relays if relay.alive]

    @property
    def breakers(self) -> int:
        """Open breakers of those."""
        return len({(b.lane, b.target) for relay in self.alive for b in relay.breakers})

    @property
    def lanes(self) -> frozenset[str]:
        """What those take."""
        return frozenset(lane for relay in self.alive for lane in relay.lanes)


def overview_page(services: ConsoleServices) -> Page:
    """The page and what it does."""
    page = Page("overview")
    standing = Standing(services.database, list(services.channels))
    rollups, dead_letters = Rollups(services.database), DeadLetters(services.database)

    @page.get("/")
    async def show(visit: Visit) -> Response:
        state = State(
            await standing.deliveries(),
            await standing.events(),
            await standing.troubles(),
            await rollups.relays(),
        )
        groups = await dead_letters.groups(counted=_COMPARED) if state.dead else []
        window = _WINDOWS.get(visit.query("range") or "", Window.HOUR)
        return visit.render(
            "overview/show.html",
            state=state,
            fresh=not (state.troubles.has_notifications or state.troubles.has_events),
            found=_troubles(visit, state, groups[0] if groups else None),
            most=MOST,
            modes={name: c.configured() for name, c in services.channels.items()},
            runs=(await services.runs.list(RunFilter(), limit=_RUNS)).items,
            window=window,
            windows=list(Window),
        )

    @page.get("/overview/series")
    async def series(visit: Visit) -> Response:
        window = _WINDOWS.get(visit.query("range") or "", Window.HOUR)
        body = to_json(charts_of(window, await rollups.series(window)))
        return Response(body, headers=dict(SECURITY_HEADERS), media_type="application/json")

    return page


def _troubles(visit: Visit, state: State, dead: Group | None) -> Sequence[Trouble]:
    """What wants somebody, the worst first."""
    t, url = visit.t, visit.url
    found: list[Trouble] = []

    def tell(bad: bool, text: str, to: str, mend: str) -> None:
        trouble = Trouble(bad, text, to, t(f"overview.mend.{mend}"))
        if trouble not in found:
            found.append(trouble)

    if not state.alive:
        tell(True, t("overview.no_relay"), url("/") + "#relays", "relay")
    for channel in state.channels:
        late = channel.oldest or 0.0
        unserved = state.alive and channel.channel not in state.lanes
        to = url("/notifications", channel=channel.channel, status="PENDING")
        if unserved and late >= LATE_SECONDS:
            text = t("overview.no_relay_for", channel=channel.channel, n=channel.due)
            tell(True, text, to, "relay")
        elif late >= LATE_SECONDS:
            text = t("overview.late", channel=channel.channel, age=duration(late), n=channel.due)
            tell(late >= STUCK_SECONDS, text, to, "look")
    events = state.events
    if events.unread_slots and (events.ready or events.parked):
        tell(True, t("overview.slots_unread", n=events.unread_slots), url("/events"), "relay")
    if (late := events.oldest or 0.0) >= LATE_SECONDS:
        text = t("overview.late", channel=t("overview.events"), age=duration(late), n=events.ready)
        tell(late >= STUCK_SECONDS, text, url("/events"), "look")
    if events.blocked_keys:
        text = t("overview.blocked", n=events.blocked_keys)
        tell(False, text, url("/events") + "#blocked", "blocked")
    for relay in state.relays:
        if not relay.alive:
            tell(False, t("overview.lost", worker=relay.worker), url("/") + "#relays", "look")
        for breaker in relay.breakers if relay.alive else ():
            to = url("/events") if breaker.lane == EVENTS else url("/channels")
            text = t("overview.breaker", channel=breaker.lane, target=breaker.target)
            tell(True, text, f"{to}#{breaker.lane}", "breaker")
    if state.troubles.high_alerts:
        to = url("/enrolment/alerts", severity="high", state="open")
        tell(True, t("overview.alerts", n=state.troubles.high_alerts), to, "alerts")
    if state.dead:
        text = t("overview.dead", n=state.dead)
        if dead is not None:
            code = dead.error_code or t("dead_letters.no_code")
            why = t.known(f"notifications.code.{code}", code)
            text += " · " + t("overview.mostly", channel=dead.channel, why=why)
        tell(False, text, url("/dead-letters"), "dead")
    if state.troubles.disabled_endpoints:
        text = t("overview.disabled", n=state.troubles.disabled_endpoints)
        tell(False, text, url("/channels") + "#endpoints", "disabled")
    return sorted(found, key=lambda trouble: not trouble.bad)
