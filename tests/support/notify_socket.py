"""systemd's notification socket, to which services report their states."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Self

from tests.support.waiting import wait_until


class NotifySocket:
    """Records the states that programs report; for a ``with`` statement."""

    def __init__(self, path: Path, *, abstract: bool = False) -> None:
        self.address = f"@{path}" if abstract else str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{path}" if abstract else str(path))
        self._socket.setblocking(False)
        self._told: list[str] = []

    def settings(self, watchdog_seconds: float | None = None) -> dict[str, str]:
        """Return systemd's variables in a service's environment."""
        settings = {"NOTIFY_SOCKET": self.address}
        if watchdog_seconds is not None:
            settings["WATCHDOG_USEC"] = str(int(watchdog_seconds * 1e6))
        return settings

    @property
    def told(self) -> list[str]:
        while True:
            try:
                self._told.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return self._told

    def wait_for(self, state: str, times: int = 1) -> None:
        wait_until(lambda: self.told.count(state) >= times, f"{state} {times} times")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
