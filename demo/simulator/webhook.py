"""Posts events to a webhook, with the shapes and faults of the simulated gateway."""

import heapq
import itertools
import json
import queue
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any, get_type_hints
from urllib.parse import quote

import requests

from demo.simulator.apis.calls import Event, SimulatedApi
from demo.simulator.messages import SimulatedMessage
from demo.simulator.model import SimulatedGateway

_TIMEOUT = 5.0


@dataclass
class Manners:
    """How events are posted.

    They go to `url`; None posts none. Message events are dated `late_seconds` back, carry media of
    `megabytes`, and are posted `repeats` more times. A `flood` of so many events without a message
    precedes each. `by_events` appends the event's name to the URL, as Evolution can. `signed` false
    leaves signatures out, as WAHA's older Core does. Posts without a 2xx answer are retried up to
    `retries` times, `retry_seconds` apart.
    """

    url: str | None = None
    token: str = field(default="", repr=False)
    repeats: int = 0
    late_seconds: float = 0.0
    flood: int = 0
    megabytes: float = 0.0
    by_events: bool = False
    signed: bool = True
    retries: int = 0
    retry_seconds: float = 1.0


SETTINGS = get_type_hints(Manners)
"""Types of the settings of `PUT /sim/webhook`."""


class Webhook:
    """A thread that posts each new message.

    The API says how an event is signed, or carries the token: else it is in the URL.
    """

    def __init__(self, gateway: SimulatedGateway, api: type[SimulatedApi]) -> None:
        self._gateway = gateway
        self._api = api
        self._manners = Manners()
        self._queue: queue.Queue[SimulatedMessage | None] = queue.Queue()
        self._answers: dict[str, int] = {}
        self._later: list[tuple[float, int, int, str, Event]] = []
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def start(self) -> None:
        """Subscribe to new messages and start the thread."""
        self._gateway.births.listen(self._queue.put)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the events that are queued, or after 5 s."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(_TIMEOUT)

    def set(self, **manners: Any) -> None:
        """Change Manners for the next events."""
        self._manners = replace(self._manners, **manners)

    def snapshot(self) -> dict[str, Any]:
        """Describe it for the control API; `answers` counts HTTP statuses and `error`."""
        manners = {name: getattr(self._manners, name) for name in SETTINGS if name != "token"}
        return {**manners, "answers": dict(self._answers)}

    def _run(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while True:
                try:
                    message = self._queue.get(timeout=self._post_again(session))
                except queue.Empty:
                    continue
                if message is None:
                    return
                manners = self._manners
                if manners.url is None or not self._gateway.posts(message.channel):
                    continue
                for _ in range(manners.flood):
                    self._post(session, manners.url, self._api.other(message.channel))
                late = replace(message, at=message.at - manners.late_seconds)
                event = self._api.event(late)
                if manners.megabytes:
                    event["base64"] = "A" * int(manners.megabytes * 1024 * 1024)
                for _ in range(1 + manners.repeats):
                    self._post(session, manners.url, event, manners.retries)

    def _post_again(self, session: requests.Session) -> float | None:
        """Retry failed posts that are due; return the seconds until the next retry."""
        while self._later and self._later[0][0] <= time.monotonic():
            _, _, left, url, event = heapq.heappop(self._later)
            self._post(session, url, event, left)
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None

    def _post(self, session: requests.Session, url: str, event: Event, retries: int = 0) -> None:
        place = url
        body = json.dumps(event).encode()
        token = self._manners.token
        sends = self._manners.signed or self._api.sends_header
        headers = self._api.event_headers(token, body) if sends else {}
        if self._manners.by_events:
            url += "/" + str(event["event"]).replace(".", "-")
        if not headers:
            url += f"?token={quote(token, safe='')}"
        headers["Content-Type"] = "application/json"
        try:
            answer = session.post(url, body, headers=headers, timeout=_TIMEOUT)
            result = str(answer.status_code)
        except requests.RequestException:
            result = "error"
        self._answers[result] = self._answers.get(result, 0) + 1
        if retries and not result.startswith("2"):
            due = time.monotonic() + self._manners.retry_seconds
            heapq.heappush(self._later, (due, next(self._numbers), retries - 1, place, event))
