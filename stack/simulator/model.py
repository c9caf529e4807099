"""The simulated gateway itself: its channels, and what each call does to them."""

import base64
import threading
from collections.abc import Mapping
from typing import Any

from stack.simulator import answers, qr_image
from stack.simulator.answers import Answer
from stack.simulator.channel import ACTIONS, Channel
from stack.simulator.clock import Clock, SystemClock
from stack.simulator.errors import Refused


class Gateway:
    """All channels, safe to use from any thread."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self._channels: dict[str, Channel] = {}
        self._lock = threading.Lock()
        self._qr_codes = 0

    def list_channels(self) -> Answer:
        """Answer `GET /api/channels`."""
        with self._lock:
            now = self.clock.monotonic()
            entries = []
            for channel in self._channels.values():
                channel.settle(now)
                entries.append(answers.list_entry(channel.id, channel.knobs, channel.status))
        return answers.channel_list(entries)

    def get_qr(self, channel_id: str, image_root: str) -> Answer:
        """Answer `GET /api/channels/{id}/qr`; images are also found below the URL given."""
        with self._lock:
            channel = self._channels.get(channel_id)
            if channel is None:
                return answers.NOT_FOUND
            reply = channel.ask_qr(self.clock.monotonic())
            knobs = channel.knobs
            if reply == "qr":
                self._qr_codes += 1
                value = _qr_value(self._qr_codes, knobs.qr_form, image_root)
                return answers.qr_code(knobs.qr_field, value)
            if reply == "not_started":
                return answers.not_started(knobs.not_started_http)
        return {
            "connected": answers.CONNECTED,
            "initializing": answers.INITIALIZING,
            "invalid_qr": answers.INVALID_QR,
        }[reply]

    def start_session(self, channel_id: str) -> Answer:
        """Answer `POST /api/channels/{id}/start-session`."""
        with self._lock:
            channel = self._channels.get(channel_id)
            if channel is None:
                return answers.NOT_FOUND
            channel.start_session(self.clock.monotonic())
        return answers.STARTED

    def delete(self, channel_id: str) -> Answer:
        """Answer `DELETE /api/channels/{id}`."""
        with self._lock:
            gone = self._channels.pop(channel_id, None)
        return answers.NOT_FOUND if gone is None else answers.DELETED

    def create(self, channel_id: object) -> Answer:
        """Answer `POST /api/channels`: a new session, which no phone is paired with."""
        if not isinstance(channel_id, str) or not channel_id:
            return answers.NO_CHANNEL_NAMED
        with self._lock:
            if channel_id in self._channels:
                return answers.ALREADY_THERE
            channel = Channel(channel_id, self.clock.monotonic(), "disconnected")
            channel.knobs.session = "unpaired"
            self._channels[channel_id] = channel
        return answers.created(channel_id)

    def put(self, channel_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Create a channel or change its settings, which must have been checked.

        A new channel with a paired session is connected, any other is disconnected.
        """
        with self._lock:
            now = self.clock.monotonic()
            channel = self._channels.get(channel_id)
            if channel is None:
                paired = settings.get("session", "paired") == "paired"
                channel = Channel(channel_id, now, "connected" if paired else "disconnected")
                self._channels[channel_id] = channel
            channel.settle(now)
            channel.change(settings, now)
            return channel.snapshot(now)

    def act(self, channel_id: str, action: str) -> dict[str, Any]:
        """Let something happen to a channel, and return what it looked like afterwards."""
        if action not in {*ACTIONS, "remove"}:
            raise Refused(404, f"unknown action {action!r}; known are {', '.join(ACTIONS)}, remove")
        with self._lock:
            now = self.clock.monotonic()
            channel = self._channels.get(channel_id)
            if channel is None:
                raise Refused(404, f"there is no channel {channel_id!r}")
            channel.settle(now)
            if action == "remove":
                del self._channels[channel_id]
            else:
                channel.act(action, now)
            return channel.snapshot(now)

    def snapshot(self) -> list[dict[str, Any]]:
        """Describe every channel for the control API."""
        with self._lock:
            now = self.clock.monotonic()
            return [channel.snapshot(now) for channel in self._channels.values()]


def _qr_value(number: int, form: str, image_root: str) -> str:
    if form == "http_url":
        return f"{image_root}{number}.png"
    bare = base64.b64encode(qr_image.png(number)).decode()
    return f"data:image/png;base64,{bare}" if form == "data_url" else bare
