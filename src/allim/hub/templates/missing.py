"""What a template needs and was not given: all of it by name, not the first only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jinja2 import ChainableUndefined, UndefinedError
from jinja2.runtime import Undefined

PLACES = 10_000
"""Places that a missing value is looked for in."""


def noting(note: Callable[[Any, str], object]) -> type[Undefined]:
    """A kind of undefined value that goes on as an empty text, once it has been noted."""

    class Noted(ChainableUndefined):
        __slots__ = ()

        def _seen(self) -> None:
            note(self._undefined_obj, str(self._undefined_name))

        def __str__(self) -> str:
            self._seen()
            return ""

        def __html__(self) -> str:
            return str(self)

        def __iter__(self) -> Iterator[Any]:
            self._seen()
            return iter(())

        def __len__(self) -> int:
            self._seen()
            return 0

        def __bool__(self) -> bool:
            self._seen()
            return False

        def __eq__(self, other: object) -> bool:
            self._seen()
            return False

        __hash__ = None  # type: ignore[assignment]

        def _fail_with_undefined_error(self, *_args: Any, **_more: Any) -> Any:
            self._seen()
            raise UndefinedError(self._undefined_message)

        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _fail_with_undefined_error
        __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = _fail_with_undefined_error
        __mod__ = __rmod__ = __pow__ = __rpow__ = _fail_with_undefined_error
        __lt__ = __le__ = __gt__ = __ge__ = __int__ = __float__ = _fail_with_undefined_error
        __call__ = __neg__ = __pos__ = _fail_with_undefined_error

    return Noted


def path_of(values: Mapping[str, Any], holder: Any, name: str) -> str:
    """Where a missing value should stand: the path of what should hold it, and its name."""
    if not isinstance(holder, dict | list):
        return name
    waiting: list[tuple[str, Any]] = [
        (key, value) for key, value in values.items() if key != "data"
    ]
    for _ in range(PLACES):
        if not waiting:
            break
        path, value = waiting.pop(0)
        if value is holder:
            return f"{path}.{name}"
        if isinstance(value, dict):
            waiting += [(f"{path}.{key}", item) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{path}[{at}]", item) for at, item in enumerate(value)]
    return f"data.{name}" if holder is values.get("data") else name
