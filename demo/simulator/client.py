"""Client for a running simulator in another process."""

from typing import Any
from urllib.parse import quote

import requests

_TIMEOUT = 5.0


class SimulatorError(Exception):
    """The simulator refused a control call; the text is its error line."""


class Simulator:
    """The control API of the simulator at a URL.

    Thread-safe. A refused call raises SimulatorError, a failed one a `requests.RequestException`.
    """

    def __init__(self, url: str, *, verify: bool | str = True) -> None:
        self.url = url.rstrip("/")
        self._verify = verify

    def state(self) -> dict[str, Any]:
        """Return channels, faults, traffic and webhook."""
        return self._object("GET", "state")

    def channel(self, channel: str) -> dict[str, Any] | None:
        """Return a channel's state, None if no channel has that id."""
        for one in self.state()["channels"]:
            if one["id"] == channel:
                return dict(one)
        return None

    def put_channel(self, channel: str, **settings: Any) -> dict[str, Any]:
        """Create a channel or change its settings (see Knobs), and return its state."""
        return self._object("PUT", f"channels/{quote(channel, safe='')}", settings)

    def drop(self, channel: str) -> dict[str, Any]:
        """Disconnect the channel visibly: the gateway lists it as disconnected."""
        return self._act(channel, "drop")

    def zombie(self, channel: str) -> dict[str, Any]:
        """Make the channel a zombie: no messages, while the gateway lists it as `connected`."""
        return self._act(channel, "zombie")

    def deafen(self, channel: str) -> dict[str, Any]:
        """Make it a zombie that still sends and answers queries, but receives nothing."""
        return self._act(channel, "deafen")

    def quieten(self, channel: str, *, quiet: bool = True) -> dict[str, Any]:
        """Stop a healthy channel's traffic in both directions, or resume it."""
        return self.put_channel(channel, quiet=quiet)

    def flap(self, channel: str) -> dict[str, Any]:
        """Restart the channel by itself: it is connected again after its `reconnect_seconds`."""
        return self._act(channel, "flap")

    def number(self, channel: str) -> str:
        """Return the phone number that the simulator assigned to a channel."""
        known = self.channel(channel)
        if known is None:
            raise SimulatorError(f"there is no channel {channel!r}")
        return str(known["number"])

    def unpair(self, channel: str) -> dict[str, Any]:
        """Unpair the channel, so that only a scanned QR code reconnects it."""
        return self._act(channel, "unpair")

    def scan(self, channel: str) -> dict[str, Any]:
        """Scan the channel's QR code; refused if it shows none."""
        return self._act(channel, "scan")

    def enter_code(self, channel: str, code: str) -> dict[str, Any]:
        """Enter a pairing code on the channel's phone; refused if the code is not valid."""
        path = f"channels/{quote(channel, safe='')}/enter_code"
        return self._object("POST", path, {"code": code})

    def connect(self, channel: str) -> dict[str, Any]:
        """Connect the channel and make it alive, as if the phone had reconnected by itself."""
        return self._act(channel, "connect")

    def kill_browser(self, channel: str) -> dict[str, Any]:
        """Kill the Chromium that a failed start has left behind, as an operator can."""
        return self._act(channel, "kill_browser")

    def remove(self, channel: str) -> dict[str, Any]:
        """Remove the channel from the gateway."""
        return self._act(channel, "remove")

    def fault(self, operation: str, fault: str, **settings: Any) -> dict[str, Any]:
        """Switch on a fault of an operation, until cleared or as `settings` say; see SwitchedOn."""
        spec = {"fault": fault, **settings}
        return self._object("PUT", f"faults/{quote(operation, safe='')}", spec)

    def clear_faults(self, operation: str | None = None) -> None:
        """Switch off the faults of one operation or of all, and release the calls on hold."""
        self._call("DELETE", "faults" if operation is None else f"faults/{quote(operation)}")

    def requests(
        self, operation: str | None = None, channel: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the gateway's calls, oldest first, filtered by operation and channel."""
        wanted = {"operation": operation, "channel": channel}
        return list(self._call("GET", "requests", params=wanted))

    def clear_requests(self) -> None:
        """Delete the recorded calls."""
        self._call("DELETE", "requests")

    def webhook(self, **manners: Any) -> dict[str, Any]:
        """Change how events are posted; see Manners."""
        return self._object("PUT", "webhook", manners)

    def traffic(self, **changes: float | bool) -> dict[str, Any]:
        """Change the interval in ``seconds`` or whether it is ``paused``; return the state."""
        return self._object("PUT", "traffic", changes)

    def _act(self, channel: str, action: str) -> dict[str, Any]:
        return self._object("POST", f"channels/{quote(channel, safe='')}/{action}")

    def _object(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return dict(self._call(method, path, body))

    def _call(
        self, method: str, path: str, body: Any = None, params: dict[str, str | None] | None = None
    ) -> Any:
        with requests.Session() as session:
            # The simulator is on this machine: ignore the environment's proxies.
            session.trust_env = False
            response = session.request(
                method,
                f"{self.url}/sim/{path}",
                json=body,
                params=params,
                timeout=_TIMEOUT,
                verify=self._verify,
            )
        answer = response.json()
        if not response.ok:
            raise SimulatorError(answer["error"])
        return answer
