"""Settings: typed groups read from the environment and `.env`.

Each part of Allim declares the settings it needs as a `SettingsGroup`; the field
`smtp_url` is the variable `SMTP_URL`. `Environment` is what they are read from, so a
test hands in a dict and nothing reads `os.environ` behind its back.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, ValidationError

from allim.base.errors import ConfigurationError
from allim.base.validation import in_our_words

OUR_PREFIX = "ALLIM_"
INVALID = "invalid settings: "


class SettingsGroup(BaseModel):
    """A frozen group of settings; a field's variable is its name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


Group = TypeVar("Group", bound=SettingsGroup)


class Environment:
    """The variables that settings are read from: the process's over those of `.env`."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = dict(variables)

    @classmethod
    def of_process(cls, dotenv: Path | None = Path(".env")) -> Environment:
        """The process's environment over the file `dotenv`, where that exists."""
        from_file: dict[str, str] = {}
        if dotenv is not None and dotenv.is_file():
            from_file = {k: v for k, v in dotenv_values(dotenv).items() if v is not None}
        return cls({**from_file, **os.environ})

    def get(self, name: str) -> str | None:
        """The value of a variable; an empty one counts as not set."""
        return self._variables.get(name, "").strip() or None

    def beginning(self, prefix: str) -> Mapping[str, str]:
        """What is set under names that begin so, without that beginning."""
        names = [name for name in self._variables if name.startswith(prefix)]
        return {n.removeprefix(prefix): value for n in names if (value := self.get(n)) is not None}

    def replacing(self, **variables: str) -> Environment:
        """A copy with some variables set anew."""
        return Environment({**self._variables, **variables})

    def read(self, group: type[Group]) -> Group:
        """Read one group.

        Raises ConfigurationError naming every variable that is wrong and why. Values
        are not shown: they may be secrets.
        """
        given: dict[str, Any] = {
            name: value
            for name in group.model_fields
            if (value := self.get(name.upper())) is not None
        }
        try:
            return group.model_validate(given)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            raise ConfigurationError(INVALID + "; ".join(map(_told, details))) from None

    def refuse_unknown(self, groups: Iterable[type[SettingsGroup]]) -> None:
        """Raise ConfigurationError for any `ALLIM_*` variable that no group knows."""
        known = {name.upper() for group in groups for name in group.model_fields}
        unknown = sorted(n for n in self._variables if n.startswith(OUR_PREFIX) and n not in known)
        if not unknown:
            return
        lines = []
        for name in unknown:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            lines.append(f"{name} (did you mean {near[0]}?)" if near else name)
        raise ConfigurationError("unknown settings: " + ", ".join(lines))


def _told(found: Any) -> str:
    # What is wrong with several together names them itself.
    variable = "".join(f"{step.upper()} " for step in found["loc"][:1])
    return variable + in_our_words(found)
