"""Where it is known whether a reservation was cancelled: a function, a statement, a URL, Django."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString, cast
from urllib.parse import quote

from pydantic_core import from_json

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels.http.client import HttpClient
from allim.channels.registry import make_http
from allim.database.pool import Database
from allim.messaging.cancellation import CancellationSource, ReservationId, each
from allim.messaging.settings import DOCUMENTED_CHECK, CancellationSettings

AT_ONCE = 16
_OK = 200


def cancellation_source(database: Database, environment: Environment) -> CancellationSource | None:
    """The source that the settings name, or None. Raises ConfigurationError."""
    settings = CancellationSettings.of(environment)
    timeout = settings.cancellation_timeout_seconds
    if settings.cancellation_sql is not None:
        return StatementSource(database, settings.cancellation_sql, timeout)
    if settings.cancellation_url is not None:
        return UrlSource(make_http(environment), settings.cancellation_url, timeout)
    if settings.django_settings_module is not None:
        path = settings.cancellation_function or DOCUMENTED_CHECK
        return FunctionSource(django_function(settings.django_settings_module, path), timeout)
    if settings.cancellation_function is not None:
        return FunctionSource(function_at(settings.cancellation_function), timeout)
    return None


class FunctionSource:
    """A function of the user's own, sync or async. Sync ones run in threads, a few at once."""

    def __init__(self, function: Callable[[Any], Any], timeout: float) -> None:
        self._function = function
        self._timeout = timeout
        self._is_async = inspect.iscoroutinefunction(function)
        self._threads = None if self._is_async else ThreadPoolExecutor(4, "cancellation")

    async def cancelled(
        self, reservations: Collection[ReservationId]
    ) -> Mapping[ReservationId, bool | Exception]:
        """Call it once for each."""
        return await each(reservations, self._ask, at_once=AT_ONCE, timeout=self._timeout)

    async def _ask(self, reservation: ReservationId) -> bool:
        if self._threads is not None:
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._threads, self._function, reservation)
        else:
            answer = await self._function(reservation)
        if inspect.isawaitable(answer):
            answer = await answer
        if not isinstance(answer, bool):
            raise TypeError(f"the function answered {type(answer).__name__}, not true or false")
        return answer

    async def close(self) -> None:
        """Start no more calls."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


class StatementSource:
    """A statement on Allim's own database, once for a whole batch."""

    def __init__(self, database: Database, statement: str, timeout: float) -> None:
        self._database = database
        # The operator's own, like the rest of the settings.
        self._statement: LiteralString = statement
        self._timeout = timeout

    async def cancelled(
        self, reservations: Collection[ReservationId]
    ) -> Mapping[ReservationId, bool | Exception]:
        """Run it; what it answers with is cancelled. Ids are numbers where all of them are."""
        numbers = all(isinstance(reservation, int) for reservation in reservations)
        asked = [each if numbers else str(each) for each in reservations]
        try:
            async with asyncio.timeout(self._timeout):
                rows = await self._database.fetch(self._statement, {"reservation_ids": asked})
        except Exception as error:
            # The boundary to a statement that nobody has tested: not knowing is the answer.
            return dict.fromkeys(reservations, error)
        found = {str(row[0]) for row in rows}
        return {reservation: str(reservation) in found for reservation in reservations}

    async def close(self) -> None:
        """Nothing of its own."""


class UrlSource:
    """A URL of the operator's own that answers with JSON: ``{"cancelled": true}``."""

    def __init__(self, http: HttpClient, url: str, timeout: float) -> None:
        self._http = http
        self._url = url
        self._timeout = timeout

    async def cancelled(
        self, reservations: Collection[ReservationId]
    ) -> Mapping[ReservationId, bool | Exception]:
        """Ask about each."""
        return await each(reservations, self._ask, at_once=AT_ONCE, timeout=self._timeout)

    async def _ask(self, reservation: ReservationId) -> bool:
        answer = await self._http.request(
            "GET",
            self._url.replace("{reservation_id}", quote(str(reservation), safe="")),
            headers={"Accept": "application/json"},
            timeout=self._timeout,
            trusted=True,
        )
        if answer.status != _OK or not answer.complete:
            raise ValueError(f"CANCELLATION_URL answered HTTP {answer.status}")
        body = from_json(answer.body)
        verdict = body.get("cancelled", body.get("canceled")) if isinstance(body, dict) else None
        if not isinstance(verdict, bool):
            raise ValueError('CANCELLATION_URL did not answer {"cancelled": true|false}')
        return verdict

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()


def function_at(path: str) -> Callable[[Any], Any]:
    """The function at a dotted path (``shop.reservations.is_cancelled``).

    Raises ConfigurationError.
    """
    module, _, name = path.replace(":", ".").rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"the function {path} that tells of cancelled reservations cannot be had: {error}"
        ) from error
    if not callable(function):
        raise ConfigurationError(f"{path} is no function")
    return cast(Callable[[Any], Any], function)


def django_function(settings_module: str, path: str) -> Callable[[Any], Any]:
    """A function of a Django project that is set up first, and gives its connections back.

    Raises ConfigurationError where Django or the project cannot be loaded.
    """
    import os

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings_module)
    try:
        django = importlib.import_module("django")
        django.setup()
        close_old_connections = importlib.import_module("django.db").close_old_connections
    except Exception as error:
        # The boundary to a whole project of somebody else's.
        raise ConfigurationError(
            f"DJANGO_SETTINGS_MODULE={settings_module} cannot be set up: {error!r}"
        ) from error
    function = function_at(path)
    if inspect.iscoroutinefunction(function):
        return function

    def in_thread(reservation: ReservationId) -> Any:
        close_old_connections()
        try:
            return function(reservation)
        finally:
            close_old_connections()

    return in_thread
