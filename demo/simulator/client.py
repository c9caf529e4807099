"""Controls a running simulator from another process."""

from typing import Any, Unpack
from urllib.parse import quote

import requests

from demo.simulator.knobs import KnobSettings


class SimulatorError(Exception):
    """The simulator refused a control call; the text is its own line about it."""


class Simulator:
    """The control API of the simulator at a URL.

    Safe to share between threads. A refused call raises SimulatorError, one that cannot be made
    a `requests.RequestException`.
    """

    def __init__(self, url: str, *, timeout: float = 5.0, verify: bool | str = True) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._verify = verify

    def state(self) -> dict[str, Any]:
        """Return all there is to know: channels, faults, traffic, number of requests noted."""
        return self._object("GET", "state")

    def channel(self, channel: str) -> dict[str, Any] | None:
        """Return what a channel looks like, or null if there is none of that id."""
        for one in self.state()["channels"]:
            if one["id"] == channel:
                return dict(one)
        return None

    def put_channel(self, channel: str, **settings: Unpack[KnobSettings]) -> dict[str, Any]:
        """Create a channel or change its settings, and return what it looks like now."""
        return self._object("PUT", f"channels/{quote(channel, safe='')}", settings)

    def drop(self, channel: str) -> dict[str, Any]:
        """Disconnect the channel, in a way that the gateway notices."""
        return self._act(channel, "drop")

    def zombie(self, channel: str) -> dict[str, Any]:
        """Silence the channel while the gateway goes on saying `connected`."""
        return self._act(channel, "zombie")

    def deafen(self, channel: str) -> dict[str, Any]:
        """Make it a zombie that can send and be asked, and hears nothing any more."""
        return self._act(channel, "deafen")

    def quieten(self, channel: str, *, quiet: bool = True) -> dict[str, Any]:
        """Let nobody write to the channel or from it any more, well as it is; or again."""
        return self.put_channel(channel, quiet=quiet)

    def flap(self, channel: str) -> dict[str, Any]:
        """Let the channel start anew by itself: it is back after its `reconnect_seconds`."""
        return self._act(channel, "flap")

    def number(self, channel: str) -> str:
        """Return the phone number that the simulator has given to a channel."""
        known = self.channel(channel)
        if known is None:
            raise SimulatorError(f"there is no channel {channel!r}")
        return str(known["number"])

    def unpair(self, channel: str) -> dict[str, Any]:
        """Disconnect the channel so that only scanning a QR code brings it back."""
        return self._act(channel, "unpair")

    def scan(self, channel: str) -> dict[str, Any]:
        """Scan the QR code that the channel shows; refused if it shows none."""
        return self._act(channel, "scan")

    def enter_code(self, channel: str, code: str) -> dict[str, Any]:
        """Type a pairing code on the channel's phone; refused if it is not alive."""
        path = f"channels/{quote(channel, safe='')}/enter_code"
        return self._object("POST", path, {"code": code})

    def connect(self, channel: str) -> dict[str, Any]:
        """Connect the channel and bring it to life, as if the phone had come back by itself."""
        return self._act(channel, "connect")

    def kill_browser(self, channel: str) -> dict[str, Any]:
        """End the Chromium that a failed start has left behind, as a person can."""
        return self._act(channel, "kill_browser")

    def remove(self, channel: str) -> dict[str, Any]:
        """Take the channel out of the gateway."""
        return self._act(channel, "remove")

    def fault(
        self,
        operation: str,
        fault: str,
        *,
        times: int | None = None,
        channel: str | None = None,
        seconds: float | None = None,
        megabytes: float = 16.0,
        location: str = "/sim/elsewhere",
        effect: bool = False,
    ) -> dict[str, Any]:
        """Switch a fault of an operation on, until cleared or for the next `times` calls.

        `channel` limits it to calls about that channel; `seconds` holds the answer back; with
        `effect` the call does its work in spite of what it answers.
        """
        spec = {
            "fault": fault,
            "times": times,
            "channel": channel,
            "seconds": seconds,
            "megabytes": megabytes,
            "location": location,
            "effect": effect,
        }
        return self._object("PUT", f"faults/{quote(operation, safe='')}", spec)

    def clear_faults(self, operation: str | None = None) -> None:
        """Switch the faults off, of one operation or all, and release the calls they hold."""
        self._call("DELETE", "faults" if operation is None else f"faults/{quote(operation)}")

    def requests(
        self, operation: str | None = None, channel: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the calls that the gateway got, oldest first, only some of them if told so."""
        wanted = {"operation": operation, "channel": channel}
        return list(self._call("GET", "requests", params=wanted))

    def clear_requests(self) -> None:
        """Forget the calls noted so far."""
        self._call("DELETE", "requests")

    def webhook(self, **manners: Any) -> dict[str, Any]:
        """Change how events are posted, see Manners."""
        return self._object("PUT", "webhook", manners)

    def traffic(
        self, *, seconds: float | None = None, paused: bool | None = None
    ) -> dict[str, Any]:
        """Change the pace of the messages, or stop and go, and return how it stands."""
        wanted = {"seconds": seconds, "paused": paused}
        given = {name: value for name, value in wanted.items() if value is not None}
        return self._object("PUT", "traffic", given)

    def _act(self, channel: str, action: str) -> dict[str, Any]:
        return self._object("POST", f"channels/{quote(channel, safe='')}/{action}")

    def _object(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return dict(self._call(method, path, body))

    def _call(
        self, method: str, path: str, body: Any = None, params: dict[str, str | None] | None = None
    ) -> Any:
        with requests.Session() as session:
            # The simulator is on this machine: no proxy of the environment is meant for it.
            session.trust_env = False
            response = session.request(
                method,
                f"{self.url}/sim/{path}",
                json=body,
                params=params,
                timeout=self._timeout,
                verify=self._verify,
            )
        answer = response.json()
        if not response.ok:
            raise SimulatorError(answer["error"])
        return answer
