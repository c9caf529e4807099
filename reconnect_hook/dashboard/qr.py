"""Asks for a channel's QR code while somebody looks, once for all who do; and pairing codes."""

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
    QrAnswer,
    QrKind,
)

_log = logging.getLogger("reconnect_hook")

MAX_IMAGE_BYTES = 1024 * 1024
"""A larger image is no QR code."""

_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)


class QrImageError(Exception):
    """There is no image that could be shown."""


@dataclass(frozen=True, slots=True)
class QrImage:
    """What lets whoever scans it take over the account: out of ``repr()``, and never written."""

    kind: str
    data: bytes = field(repr=False)


NO_IMAGE = QrImage(
    "image/gif", base64.b64decode("R0lGODlhAQABAIAAAAAAAAAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
)
"""A dot that cannot be seen, while there is no code."""


def read(text: str, fetch: Callable[[str], bytes]) -> QrImage:
    """Return the image of a QrAnswer; raise QrImageError, or what ``fetch`` raises.

    ``fetch`` gets what is only a link.
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
    raise QrImageError("no image of a kind that browsers show safely")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise QrImageError("not base64") from None


PAUSE_SECONDS = 0.7
"""Between two calls for one channel, or as long as the call took if that is longer."""

MOST_AT_ONCE = 8
"""So many channels' codes are asked for at a time; each has a call under way at most."""

_LOOKED_AT_SECONDS = 5.0  # after the last look, nobody looks any more
_FAILED_PAUSE_SECONDS = 3.0
_COUNTED_PAUSE_SECONDS = 15.0  # of a gateway whose requests are counted; a code lives for 20 s
_START_SECONDS = 15.0  # for which a session may take to start, before it is started once more
_BUSY_SECONDS = 10.0  # that a pairing code waits for a call under way
_SCANNED_SECONDS = 20.0  # until exporter and Prometheus know it too

MOST_PAIRINGS = 5
"""Pairing codes of one channel in PAIRINGS_SECONDS: each of them makes a phone ring."""

PAIRINGS_SECONDS = 600.0


class PairingLimitError(Exception):
    """A channel had too many pairing codes; ``seconds`` until the next one."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the next pairing code can be asked for in {seconds:.0f} s")
        self.seconds = seconds


class QrState(enum.StrEnum):
    """What there is to show."""

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
    """All channels whose codes are looked at; safe between threads.

    A code is in memory for as long as somebody looks, and nowhere else.
    """

    def __init__(
        self,
        client: Gateway,
        connected: Callable[[str], None],
        clock: Clock | None = None,
        *,
        is_counted: bool = False,
    ) -> None:
        """Tell ``connected`` the id of a channel whose session is up again.

        A gateway whose requests are counted (``is_counted``) is asked less often.
        """
        self._clock = clock or Clock()
        self._pause = _COUNTED_PAUSE_SECONDS if is_counted else PAUSE_SECONDS
        self._client = client
        self._connected = connected
        self._lock = threading.Lock()
        self._watches: dict[str, _QrWatch] = {}
        self._pairings: dict[str, deque[float]] = {}

    @property
    def can_pair(self) -> bool:
        """Whether the gateway has pairing codes."""
        return self._client.can_pair

    def look(self, channel: str) -> tuple[QrState, int]:
        """Return what there is to show, and the number of the code; begin to ask where none does.

        Another code has another number.
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
                known.asking = True  # only of a thread that could be started
            return known.state, known.number if known.image else 0

    def pair(self, channel: str, phone: str) -> PairingCode:
        """Return a new pairing code for a number; raise PairingLimitError or GatewayError.

        No QR code is asked for meanwhile.
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
        """Return the code that waits, None where there is none."""
        with self._lock:
            known = self._watches.get(channel_key(channel))
            return known.image if known else None

    def scanned(self, key: str) -> bool:
        """Whether the channel's session has come up under somebody's eyes a moment ago."""
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
                # A thread that dies would leave a watch that seems to ask, and no look asks again.
                _log.exception("a QR code cannot be shown, a fault of the hook itself")
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
        """Ask, start a session that is down, and return when it was started last.

        A code that expires without a scan ends the session, which is then started again: at once
        if the code was seen, after _START_SECONDS if it came and went between two calls.
        """
        image: QrImage | None = None
        try:
            answer = self._client.qr(watch.channel)
            state = _state_of(answer)
            if answer.kind is QrKind.QR:
                started_at = float("-inf")
            if answer.image is not None:
                image = read(answer.image, self._client.get_image)
            elif answer.kind is QrKind.NOT_STARTED and self._is_due(started_at):
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

    def _is_due(self, started_at: float) -> bool:
        return self._clock.monotonic() - started_at >= _START_SECONDS


_STATES = {
    QrKind.QR: QrState.CODE,
    QrKind.ACCEPTED: QrState.CONNECTED,
    QrKind.INITIALIZING: QrState.STARTING,
    QrKind.NOT_STARTED: QrState.STARTING,
}


def _state_of(answer: QrAnswer) -> QrState:
    has_none = answer.kind is QrKind.QR and answer.image is None
    return QrState.NO_IMAGE if has_none else _STATES[answer.kind]


def _is_recent(watch: _QrWatch, now: float) -> bool:
    return now - watch.connected_at < _SCANNED_SECONDS
