"""The journal of calls and answers; it never contains the secret."""

import threading
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from zapwatch.clock import Clock

_KEPT = 20_000


@dataclass
class Call:
    """One call. `status` stays None until, and unless, it gets an answer.

    Times are those of its arrival; `monotonic` is comparable between processes of one machine.
    """

    method: str
    path: str
    operation: str
    channel: str | None
    secret_right: bool
    request_id: str | None
    monotonic: float = 0.0
    epoch: float = 0.0
    fault: str | None = None
    status: int | None = None


class Journal:
    """The latest 20,000 calls, oldest first; thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: deque[Call] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def begin(self, call: Call) -> None:
        """Record a call on arrival."""
        with self._lock:
            call.monotonic, call.epoch = self._clock.monotonic(), self._clock.time()
            self._calls.append(call)

    def calls(
        self, operation: str | None = None, channel: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the calls, filtered by operation and channel if given."""
        with self._lock:
            return [
                asdict(call)
                for call in self._calls
                if operation in {None, call.operation} and channel in {None, call.channel}
            ]

    def clear(self) -> None:
        """Delete all calls."""
        with self._lock:
            self._calls.clear()
