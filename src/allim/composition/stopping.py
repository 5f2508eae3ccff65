"""Stopping a program: SIGTERM and Ctrl-C ask it to end gracefully, a second one at once."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

log = logging.getLogger("allim")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal asked the program to end before it had begun to run, or for the second time."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def interrupt_on_signals() -> None:
    """From now on a signal raises Interrupted wherever the program is, so that it cleans up."""

    def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
        raise Interrupted(number)

    for number in SIGNALS:
        signal.signal(number, interrupt)


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """While this is open the first signal calls `stop`, on the event loop; later ones interrupt.

    Cancels the running task at a second signal.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    asked = False

    def on_signal(number: int) -> None:
        nonlocal asked
        if asked:
            log.warning("asked to stop again: ending at once")
            if task is not None:
                task.cancel()
            return
        asked = True
        log.info("%s: stopping", signal.Signals(number).name)
        stop()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
        interrupt_on_signals()
