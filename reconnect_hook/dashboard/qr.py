"""QR codes, polled once per channel for all viewers while a page is open; and pairing codes."""

from __future__ import annotations

import base64
import binascii
import enum
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from zapwatch.channels import channel_key
from zapwatch.clock import Clock
from zapwatch.db import StateError
from zapwatch.gateways.base import (
    Gateway,
    GatewayError,
    GatewayErrorKind,
    Operation,
    PairingCode,
    QrKind,
)

_log = logging.getLogger("reconnect_hook")

MAX_IMAGE_BYTES = 1024 * 1024
"""Larger images are rejected."""

_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)


class QrImageError(Exception):
    """The gateway's answer holds no image that browsers can show safely."""


@dataclass(frozen=True, slots=True)
class QrImage:
    """A QR code. Scanning it takes over the account: it is kept out of ``repr()`` and logs."""

    kind: str
    data: bytes = field(repr=False)


NO_IMAGE = QrImage(
    "image/gif", base64.b64decode("R0lGODlhAQABAIAAAAAAAAAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
)
"""A transparent pixel, served while there is no code."""


def read(text: str, fetch: Callable[[str], bytes]) -> QrImage:
    """Return the image of a QrAnswer: base64, a data URL, or a link that ``fetch`` downloads.

    Raises QrImageError, and the errors of ``fetch``.
    """
    if text.startswith(("http://", "https://")):
        data = fetch(text)
    elif text.startswith("data:"):
        head, _, body = text.partition(",")
        data = _decode(body) if head.endswith(";base64") else unquote_to_bytes(body)
    else:
        data = _decode(text)
    if len(data) <= MAX_IMAGE_BYTES:
        for magic, kind in _KINDS:
            if data.startswith(magic):
                return QrImage(kind, data)
    raise QrImageError("not an image that browsers display safely")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise QrImageError("not base64") from None


PAUSE_SECONDS = 0.7
"""Pause between two calls for one channel; as long as the call took if that is longer."""

MOST_AT_ONCE = 8
"""The most channels polled at the same time, with one call each in flight."""

_LOOKED_AT_SECONDS = 5.0  # after the last look(), polling stops
_FAILED_PAUSE_SECONDS = 3.0
_COUNTED_PAUSE_SECONDS = 15.0  # at a gateway with a request budget; a code lives for 20 s
_START_SECONDS = 15.0  # until a session that has not started is started again
_BUSY_SECONDS = 10.0  # timeout of pair() for a QR call in flight
_SCANNED_SECONDS = 20.0  # until exporter and Prometheus show the connection

MOST_PAIRINGS = 5
"""The most pairing codes per channel in PAIRINGS_SECONDS: each makes a phone ring."""

PAIRINGS_SECONDS = 600.0


class PairingLimitError(Exception):
    """The channel reached MOST_PAIRINGS; the next code is allowed in ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the next pairing code can be requested in {seconds:.0f} s")
        self.seconds = seconds


class QrState(enum.StrEnum):
    """State of a QR poll, as the page's script reads it."""

    ASKING = "asking"
    CODE = "code"
    NO_IMAGE = "no-image"
    STARTING = "starting"
    CONNECTED = "connected"
    UNREADABLE = "unreadable"
    FAILED = "failed"
    LIMITED = "limited"
    BUSY = "busy"
    NONE = "none"


@dataclass(slots=True)
class _QrWatch:
    channel: str
    looked_at: float
    state: QrState = QrState.ASKING
    number: int = 0
    image: QrImage | None = field(default=None, repr=False)
    connected_at: float = float("-inf")
    asking: bool = False
    calling: threading.Lock = field(default_factory=threading.Lock, repr=False)


class QrWatches:
    """Polls the QR codes of one gateway's channels; thread-safe.

    A code exists only in memory, and only while a page shows it.
    """

    def __init__(
        self,
        client: Gateway,
        connected: Callable[[str], None],
        clock: Clock | None = None,
        *,
        is_counted: bool = False,
    ) -> None:
        """Call ``connected`` with the id of a channel whose session has come up.

        ``is_counted``: the gateway has a request budget, so it is polled less often.
        """
        self._clock = clock or Clock()
        self._pause = _COUNTED_PAUSE_SECONDS if is_counted else PAUSE_SECONDS
        self._client = client
        self._connected = connected
        self._lock = threading.Lock()
        self._watches: dict[str, _QrWatch] = {}
        self._pairings: dict[str, deque[float]] = {}

    def look(self, channel: str) -> tuple[QrState, int]:
        """Return the poll's state and the code's number (0: no code); start polling if needed.

        The number increases with each new code.
        """
        key, now = channel_key(channel), self._clock.monotonic()
        with self._lock:
            self._forget(now)
            known = self._watches.get(key)
            if known is None:
                if sum(one.asking for one in self._watches.values()) >= MOST_AT_ONCE:
                    return QrState.BUSY, 0
                known = self._watches[key] = _QrWatch(channel, now)
            known.looked_at = now
            if not known.asking and known.state is not QrState.CONNECTED:
                threading.Thread(target=self._ask, args=(known,), name="qr", daemon=True).start()
                known.asking = True  # only if the thread could be started
            return known.state, known.number if known.image else 0

    def pair(self, channel: str, phone: str) -> PairingCode:
        """Return a new pairing code for a number; raise PairingLimitError or GatewayError.

        QR polling of the channel pauses meanwhile.
        """
        key, now = channel_key(channel), self._clock.monotonic()
        with self._lock:
            self._limit_pairings(key, now)
            known = self._watches.setdefault(key, _QrWatch(channel, now))
        if not known.calling.acquire(timeout=_BUSY_SECONDS):
            words = "the gateway is still busy with this channel"
            raise GatewayError(Operation.PAIRING_CODE, GatewayErrorKind.TIMEOUT, words)
        try:
            return self._client.pairing_code(channel, phone)
        finally:
            known.calling.release()

    def _limit_pairings(self, key: str, now: float) -> None:
        for other, times in list(self._pairings.items()):
            while times and now - times[0] >= PAIRINGS_SECONDS:
                times.popleft()
            if not times:
                del self._pairings[other]
        asked = self._pairings.setdefault(key, deque())
        if len(asked) >= MOST_PAIRINGS:
            raise PairingLimitError(asked[0] + PAIRINGS_SECONDS - now)
        asked.append(now)

    def image(self, channel: str) -> QrImage | None:
        """Return the current code, or None."""
        with self._lock:
            known = self._watches.get(channel_key(channel))
            return known.image if known else None

    def scanned(self, key: str) -> bool:
        """Whether a poll saw the channel's session come up in the last 20 seconds."""
        with self._lock:
            known = self._watches.get(key)
            return known is not None and _is_recent(known, self._clock.monotonic())

    def _forget(self, now: float) -> None:
        for key, one in list(self._watches.items()):
            if not one.asking and not one.calling.locked() and not _is_recent(one, now):
                del self._watches[key]

    def _ask(self, watch: _QrWatch) -> None:
        started_at = float("-inf")
        while True:
            began = self._clock.monotonic()
            try:
                with watch.calling:
                    started_at = self._ask_once(watch, started_at)
            except Exception:  # noqa: BLE001
                # If the thread died, ``asking`` would stay True and look() would start no other.
                _log.exception("a QR code cannot be shown: internal error")
                watch.state = QrState.FAILED
            failed = watch.state in {QrState.FAILED, QrState.LIMITED, QrState.UNREADABLE}
            pause = max(self._pause, _FAILED_PAUSE_SECONDS) if failed else self._pause
            if watch.state is not QrState.CONNECTED:
                self._clock.sleep(max(pause, self._clock.monotonic() - began))
            with self._lock:
                away = self._clock.monotonic() - watch.looked_at > _LOOKED_AT_SECONDS
                if away or watch.state is QrState.CONNECTED:
                    watch.asking = False
                    watch.image = None
                    return

    def _ask_once(self, watch: _QrWatch, started_at: float) -> float:
        """Poll once, start a session that is down, and return the time of the last start.

        A code that expires without a scan ends the session. It is started again at once if the
        code was seen, after _START_SECONDS if the code came and went between two calls.
        """
        image: QrImage | None = None
        try:
            answer = self._client.qr(watch.channel)
            state = _STATES[answer.kind]
            if answer.kind is QrKind.QR:
                started_at = float("-inf")
                state = QrState.NO_IMAGE if answer.image is None else state
            if answer.image is not None:
                image = read(answer.image, self._client.get_image)
            elif (
                answer.kind is QrKind.NOT_STARTED
                and self._clock.monotonic() - started_at >= _START_SECONDS
            ):
                self._client.start_session(watch.channel)
                started_at = self._clock.monotonic()
        except GatewayError as error:
            limited = error.reason is GatewayErrorKind.LIMIT
            state = QrState.LIMITED if limited else QrState.FAILED
        except QrImageError:
            state = QrState.UNREADABLE
        with self._lock:
            if image is not None and image != watch.image:
                watch.number += 1
            watch.image, watch.state = image, state
            if state is QrState.CONNECTED:
                watch.connected_at = self._clock.monotonic()
        if state is QrState.CONNECTED:
            try:
                self._connected(watch.channel)
            except StateError as error:
                _log.warning("state: %s", error)  # the next poll finds the channel connected
        return started_at


_STATES = {
    QrKind.QR: QrState.CODE,
    QrKind.ACCEPTED: QrState.CONNECTED,
    QrKind.INITIALIZING: QrState.STARTING,
    QrKind.NOT_STARTED: QrState.STARTING,
}


def _is_recent(watch: _QrWatch, now: float) -> bool:
    return now - watch.connected_at < _SCANNED_SECONDS
