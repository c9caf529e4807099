"""Reads the settings again on SIGHUP, and says in the log what became of it."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from zapwatch.config import GatewaySettings, Settings, SettingsError, compare, load
from zapwatch.server import notify

_log = logging.getLogger("settings")


class Reloading:
    """Hands on the gateways that are named now; a file that is refused changes nothing.

    What counts for the whole program stays as it was at the start.
    """

    def __init__(
        self,
        env_file: str | None,
        settings: Settings,
        follow: Callable[[Sequence[GatewaySettings]], None],
    ) -> None:
        """Read what ``settings`` came from again, and tell ``follow`` the gateways.

        It raises SettingsError where it refuses them.
        """
        self._env_file = env_file
        self._settings = settings
        self._follow = follow
        self._wanted = threading.Event()

    def start(self) -> None:
        """Begin to listen to SIGHUP; only the main thread may."""
        threading.Thread(target=self._run, name="reload", daemon=True).start()
        signal.signal(signal.SIGHUP, lambda _number, _frame: self._wanted.set())

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            # systemd wants to know when that began, by the clock that it knows as monotonic.
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                self.reload()
            except Exception:  # noqa: BLE001 - the next time may work, and all else goes on
                _log.exception("the settings cannot be read again, a fault of the program itself")
            notify("READY=1")

    def reload(self) -> None:
        """Read again, and log what has changed or why it is refused."""
        try:
            read = load(self._env_file)
            changes = compare(self._settings, read)
            self._follow(read.gateways)
        except SettingsError as error:
            _log.error("the settings stay as they are, the new ones are refused: %s", error)
            return
        self._settings = replace(self._settings, gateways=read.gateways)
        _log.info("settings were read again: %s", changes)
