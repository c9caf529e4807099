"""Reads the settings again on SIGHUP and at ``POST /-/reload``; the log shows the result.

Each program blocks SIGHUP while it starts. Such a signal is pending until ``Reloading.start``.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence

from zapwatch.config import GatewaySettings, Settings, SettingsError, compare, merge
from zapwatch.metrics import ReloadMetrics
from zapwatch.server import notify, start_thread

_log = logging.getLogger("settings")


class Reloading:
    """Hands on the gateways that are named now; a file that is refused changes nothing.

    What counts for the whole program stays as it was at the start.
    """

    def __init__(
        self,
        load: Callable[[], Settings],
        settings: Settings,
        follow: Callable[[Sequence[GatewaySettings]], None],
        metrics: ReloadMetrics,
    ) -> None:
        """Let ``load`` read what ``settings`` came from again, and tell ``follow`` the gateways.

        Both raise SettingsError where they refuse them.
        """
        self._load = load
        self._settings = settings
        self._follow = follow
        self._metrics = metrics
        self._reloading = threading.Lock()
        self._wanted = threading.Event()

    @property
    def settings(self) -> Settings:
        """What counts by now."""
        return self._settings

    def start(self) -> None:
        """Begin to listen to SIGHUP; only the main thread may."""
        start_thread("reload", self._run)
        signal.signal(signal.SIGHUP, lambda _number, _frame: self._wanted.set())
        accept_hangup()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            self.reload()

    def reload(self) -> str | None:
        """Read again, log what has changed, and return why it is refused, None where it is not."""
        with self._reloading:
            # systemd wants to know when that began, by the clock that it knows as monotonic.
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                refusal = self._reload()
            except Exception:  # noqa: BLE001 - the next time may work, and all else goes on
                _log.exception("the settings cannot be read again, a fault of the program itself")
                refusal = "a fault of the program itself; its log has the details"
            self._metrics.record(successful=refusal is None)
            notify("READY=1")
        return refusal

    def _reload(self) -> str | None:
        try:
            read = self._load()
            changes = compare(self._settings, read)
            self._follow(read.gateways)
        except SettingsError as error:
            _log.error("the settings stay as they are, the new ones are refused: %s", error)
            return str(error)
        self._settings = merge(self._settings, read)
        _log.info("settings were read again: %s", changes)
        return None


def accept_hangup() -> None:
    """Let SIGHUP arrive, one included that was sent while the program started."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
