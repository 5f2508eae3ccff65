"""A page: its handlers, and what each needs before it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.responses import Response

from allim.console.visit import Visit
from allim.web.access import AccessScope

Handler = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Action:
    """One handler: how it is reached, and the scope that it needs."""

    method: str
    path: str
    scope: AccessScope
    handle: Handler


class Page:
    """A page of the console and what it does. `name` is that of its messages and templates.

    Paths are beneath `/console`, in Starlette's form (``/keys/{id:int}``). A handler runs only
    for somebody who is logged in with its scope; a POST only with the token of our own form.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.actions: list[Action] = []

    def get(
        self, path: str, *, scope: AccessScope = AccessScope.READ
    ) -> Callable[[Handler], Handler]:
        """Shows something; changes nothing."""
        return self._action("GET", path, scope)

    def post(
        self, path: str, *, scope: AccessScope = AccessScope.OPERATE
    ) -> Callable[[Handler], Handler]:
        """Does something: see `Visit.act`."""
        return self._action("POST", path, scope)

    def _action(self, method: str, path: str, scope: AccessScope) -> Callable[[Handler], Handler]:
        def add(handle: Handler) -> Handler:
            self.actions.append(Action(method, path, scope, handle))
            return handle

        return add
