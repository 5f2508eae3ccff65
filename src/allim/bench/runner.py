"""Runs the cases and shows what they measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from allim.base.errors import ConfigurationError
from allim.bench import (
    bulking,
    claiming,
    consoling,
    draining,
    events,
    footprint,
    mailing,
    posting,
    publishing,
    sending,
    soak,
    syncing,
    texting,
    waking,
)
from allim.bench.figures import Figure
from allim.bench.stage import Stage, stage

Case = Callable[[Stage], Iterator[Figure]]

CASES: Mapping[str, Case] = {
    posting.CASE: posting.run,
    bulking.CASE: bulking.run,
    publishing.CASE: publishing.run,
    draining.CASE: draining.run,
    events.CASE: events.run,
    events.FLAT_CASE: events.run_flat,
    sending.CASE: sending.run,
    mailing.CASE: mailing.run,
    waking.CASE: waking.run,
    footprint.CASE: footprint.run,
    claiming.CASE: claiming.run,
    consoling.CASE: consoling.run,
    syncing.CASE: syncing.run,
    texting.CASE: texting.run,
}


def run_cases(names: Sequence[str], *, as_json: bool = False, minutes: float = 5.0) -> bool:
    """Run the named cases, or all but the soak; whether every wanted figure was met.

    `minutes` is how long a soak takes. Raises ConfigurationError for an unknown case.
    """
    long: Mapping[str, Case] = {soak.CASE: partial(soak.run, seconds=minutes * 60)}
    known = {**CASES, **long}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigurationError(
            f"no such case: {', '.join(unknown)} (there are {', '.join(known)})"
        )
    figures: list[Figure] = []
    with stage() as set_up:
        for name in names or CASES:
            for figure in known[name](set_up):
                figures.append(figure)
                if not as_json:
                    sys.stdout.write(_line(figure) + "\n")
                    sys.stdout.flush()
    if as_json:
        sys.stdout.write(json.dumps([figure.as_json() for figure in figures], indent=2) + "\n")
    return all(figure.met is not False for figure in figures)


def _line(figure: Figure) -> str:
    value = f"{figure.value:,.0f}" if figure.value >= 100 else f"{figure.value:.2f}"
    verdict = {None: "", True: f"wanted {figure.wanted}", False: f"MISSED {figure.wanted}"}
    unit = f"{value} {figure.unit}"
    return f"{figure.case:<10} {figure.name:<52} {unit:>24}  {verdict[figure.met]}".rstrip()
