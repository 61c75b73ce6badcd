"""Ctrl-C that waits for a safe moment, so that an interrupted run leaves a checkpoint that is whole."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType


class Interrupted(Exception):
    """Ctrl-C was pressed and the run has come to a point where it can stop."""


class Interrupt:
    """While active, the first Ctrl-C (or SIGTERM) is noted and `check` raises; a second one stops at once.

    Only the main thread can receive signals; in any other thread this does nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.noted = False

    def check(self) -> None:
        """Raises:
        Interrupted: Ctrl-C was pressed since the start.
        """
        if self.noted:
            raise Interrupted

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted:
            raise KeyboardInterrupt
        self.noted = True
        print("stopping at the next safe moment; Ctrl-C again stops at once, without a checkpoint", file=sys.stderr)

    def __enter__(self) -> Interrupt:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
