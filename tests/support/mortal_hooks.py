"""Real hooks that tests kill with SIGKILL and restart on the same port."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import requests

from demo.loop import answers
from tests.support.hooks import TOKEN
from tests.support.programs import FORKS
from tests.support.waiting import wait_until

# Short, so that a dead hook's lease expires soon; long enough for a busy machine to renew it.
_LEASE_SECONDS = 2.0
_HURRIED = {
    **{
        f"reconnect_hook.{module}.LEASE_SECONDS": _LEASE_SECONDS
        for module in ("models", "recorder", "repository")
    },
    # Otherwise stale alerts would rightly end without a separate outcome.
    "reconnect_hook.decision.STALE_SECONDS": 0.0,
    "reconnect_hook.alerts.STALE_SECONDS": 0.0,
    "reconnect_hook.reconciler.LIST_PAUSE_SECONDS": 0.05,
    "reconnect_hook.recorder.RETRY_SECONDS": 0.1,
    "reconnect_hook.reconciler.RETRY_SECONDS": 0.1,
    "reconnect_hook.reconciler._IDLE_SECONDS": 0.1,
    "reconnect_hook.reconciler._POLL_SECONDS": 0.1,
}


def _serve(
    settings: Mapping[str, str], folder: str, listener: socket.socket, hurried: Mapping[str, float]
) -> None:
    """Run a hook in a forked process in which all modules are imported."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(settings)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    for place, value in {**_HURRIED, **hurried}.items():
        setattr(*_constant(place), value)
    # The test owns the listener, so that no other program takes the port between restarts.
    vars(socket)["create_server"] = lambda *_, **__: listener
    importlib.import_module("reconnect_hook.__main__").main(["serve"])


def _constant(place: str) -> tuple[ModuleType, str]:
    """Return a constant's module and name; raise AttributeError if there is none."""
    module_name, _, name = place.rpartition(".")
    module = importlib.import_module(module_name)
    getattr(module, name)
    return module, name


class MortalHook:
    """A hook; ``hurried`` replaces constants of its modules to shorten waits."""

    def __init__(
        self, settings: Mapping[str, str], folder: Path, hurried: Mapping[str, float] | None = None
    ) -> None:
        for place in hurried or {}:
            _constant(place)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._arguments = (dict(settings), str(folder), self._listener, dict(hurried or {}))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._process: Any = None

    def start(self) -> None:
        """Start the hook, also after a kill."""
        self._process = FORKS.Process(target=_serve, args=self._arguments, daemon=True)
        self._process.start()

    def wait(self) -> None:
        wait_until(lambda: answers(f"{self.url}/-/healthy"), "a hook to answer")

    def post(self, body: bytes) -> int:
        """Post a payload as Alertmanager does; return the status; raise RequestException."""
        # Connections during a restart wait in the listener's queue for the next hook.
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        return requests.post(f"{self.url}/alerts", body, headers=bearer, timeout=1).status_code

    def kill(self) -> float:
        """Kill the hook, and return the Unix time."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()
        return time.time()

    def close(self) -> None:
        if self._process.is_alive():
            self.kill()
        self._listener.close()
