"""The end of the dead man's switch: each heartbeat from Alertmanager becomes a call elsewhere."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from zapwatch.clock import Clock
from zapwatch.http import HttpClient, HttpError

_log = logging.getLogger("reconnect_hook")
_SECONDS = 10.0  # until the service has to have answered
LATE_SECONDS = 300.0
"""From when on a heartbeat is missing: it comes once a minute."""


@dataclass(frozen=True, slots=True)
class HeartbeatState:
    """The last heartbeat since the hook's start; times are Unix seconds."""

    is_set: bool
    """Whether HEARTBEAT_URL is set."""
    since: float
    """When the hook started to wait for heartbeats."""
    arrived_at: float | None = None
    """When Alertmanager last sent one."""
    sent_at: float | None = None
    """When the service last accepted one."""
    error: str = ""
    """Why it did not accept the last one."""


class Heartbeat:
    """Calls HEARTBEAT_URL; safe between threads, since each change is one assignment."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._client = HttpClient(url) if url else None
        self.state = HeartbeatState(is_set=bool(url), since=self._clock.time())

    def send(self) -> None:
        """Call the service. A failure is logged once, and tried again with the next heartbeat."""
        before = self.state
        now = self._clock.time()
        if self._client is None:
            self.state = replace(before, arrived_at=now)
            return
        error = _call(self._client)
        if error and error != before.error:
            _log.warning("HEARTBEAT_URL: %s", error)
        if before.error and not error:
            _log.info("HEARTBEAT_URL: heartbeats are accepted again")
        sent_at = before.sent_at if error else self._clock.time()
        self.state = replace(before, arrived_at=now, sent_at=sent_at, error=error)


def _call(client: HttpClient) -> str:
    """Return why the service did not accept a heartbeat; empty if it did.

    The address is a secret, so that no detail is repeated.
    """
    try:
        answer = client.request("GET", "", _SECONDS)
    except HttpError as error:
        return error.kind
    return "" if answer.is_success else f"HTTP {answer.status}"
