"""The journal of calls and answers; it never contains the secret."""

import threading
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from zapwatch.clock import Clock

_KEPT = 20_000


@dataclass
class Call:
    """One call. `status` and `seconds` stay None until, and unless, it gets an answer.

    The journal numbers it. Times are those of its arrival; `monotonic` is comparable between
    processes of one machine.
    """

    method: str
    path: str
    operation: str
    channel: str | None
    secret_right: bool
    request_id: str | None
    number: int = 0
    monotonic: float = 0.0
    epoch: float = 0.0
    fault: str | None = None
    status: int | None = None
    seconds: float | None = None


class Journal:
    """The latest 20,000 calls, oldest first; thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: deque[Call] = deque(maxlen=_KEPT)
        self._count = 0
        self._lock = threading.Lock()

    def begin(self, call: Call) -> None:
        """Record a call on arrival."""
        with self._lock:
            self._count += 1
            call.number = self._count
            call.monotonic, call.epoch = self._clock.monotonic(), self._clock.time()
            self._calls.append(call)

    def finish(self, call: Call, status: int | None) -> None:
        """Record a call's status and duration."""
        with self._lock:
            call.status = status
            call.seconds = round(self._clock.monotonic() - call.monotonic, 3)

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

    def __len__(self) -> int:
        with self._lock:
            return len(self._calls)
