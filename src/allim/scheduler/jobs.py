"""What a schedule runs: jobs by name, handed in by whoever wires the program."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class JobEnded:
    """How a job ended; `error` is None where it succeeded."""

    run_id: int | None = None
    error: str | None = None
    busy: bool = False
    """It was refused because another one is under way; worth another try in a while."""


Job: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[JobEnded]]
"""Runs once with a schedule's parameters. A cancelled one cleans up and ends."""

JobKinds: TypeAlias = Mapping[str, type[BaseModel]]
"""The parameters that each job takes, by the job's name."""
