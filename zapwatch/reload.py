"""Reload of the settings on SIGHUP and ``POST /-/reload``; the log shows the result.

Each program blocks SIGHUP while it starts; the signal stays pending until ``Reloading.start``.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence

from zapwatch.config import GatewaySettings, Settings, SettingsError, compare, merge
from zapwatch.metrics import ReloadMetrics
from zapwatch.server import notify, start_thread

_log = logging.getLogger("settings")


class Reloading:
    """Applies changed gateways; invalid settings change nothing.

    Settings of the whole program keep their values until a restart.
    """

    def __init__(
        self,
        load: Callable[[], Settings],
        settings: Settings,
        follow: Callable[[Sequence[GatewaySettings]], None],
        metrics: ReloadMetrics,
    ) -> None:
        """``load`` reads the sources of ``settings`` again, ``follow`` applies the gateways.

        Both raise SettingsError to refuse.
        """
        self._load = load
        self.settings = settings
        """Current settings."""
        self._follow = follow
        self._metrics = metrics
        self._reloading = threading.Lock()
        # A signal may interrupt its own handler, and never get the lock of an Event.
        self._wanted: queue.SimpleQueue[None] = queue.SimpleQueue()

    def start(self) -> None:
        """Install the SIGHUP handler; call from the main thread."""
        start_thread("reload", self._run)
        signal.signal(signal.SIGHUP, lambda _number, _frame: self._wanted.put(None))
        accept_hangup()

    def _run(self) -> None:
        while True:
            self._wanted.get()
            while not self._wanted.empty():
                self._wanted.get()
            self.reload()

    def reload(self) -> str | None:
        """Reload and log the changes; return the reason of a refusal, None on success."""
        with self._reloading:
            # systemd requires the start of the reload by CLOCK_MONOTONIC.
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                refusal = self._reload()
            except Exception:  # noqa: BLE001 - the next reload may succeed; the program keeps running
                _log.exception("the settings cannot be read again: internal error")
                refusal = "internal error; the log has the details"
            self._metrics.record(successful=refusal is None)
            notify("READY=1")
        return refusal

    def _reload(self) -> str | None:
        try:
            read = self._load()
            changes = compare(self.settings, read)
            self._follow(read.gateways)
        except SettingsError as error:
            _log.error("the settings stay as they are, the new ones are refused: %s", error)
            return str(error)
        self.settings = merge(self.settings, read)
        _log.info("settings were read again: %s", changes)
        return None


def accept_hangup() -> None:
    """Unblock SIGHUP; one that is pending since the start is delivered."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
