"""What a case measured, and what was wanted of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; `wanted` says what it should be, `met` whether it is."""

    case: str
    name: str
    value: float
    unit: str
    wanted: str = ""
    met: bool | None = None

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def at_least(case: str, name: str, value: float, unit: str, least: float) -> Figure:
    """A figure that should not be below `least`."""
    return Figure(case, name, value, unit, f"≥ {least:g}", value >= least)


def at_most(case: str, name: str, value: float, unit: str, most: float) -> Figure:
    """A figure that should not be above `most`."""
    return Figure(case, name, value, unit, f"≤ {most:g}", value <= most)


def plain(case: str, name: str, value: float, unit: str) -> Figure:
    """A figure for comparison."""
    return Figure(case, name, value, unit)


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
