"""Two pollers, for channel list and message log, and the state store that has their results.

The store has one immutable snapshot, replaced as a whole. The learner writes to it too.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from exporter.silence.model import Model
from zapwatch.channels import Channel
from zapwatch.clock import Clock
from zapwatch.gateways.base import (
    LEFT_OUT_WORDS,
    Gateway,
    GatewayError,
    GatewayErrorKind,
    LeftOut,
)
from zapwatch.messages.log_tailer import CLOCK_OFF_SECONDS
from zapwatch.messages.message import ActivitySnapshot, MessageLogError
from zapwatch.messages.source import MessageSource

_log = logging.getLogger("exporter")

_LONGEST_BACKOFF = 60.0  # seconds between two polls of a gateway that refuses
_REFUSALS = {GatewayErrorKind.UNAUTHORIZED, GatewayErrorKind.LIMIT}


@dataclass(frozen=True, slots=True)
class GatewayState:
    """Result of the last list call. ``last_success`` is in Unix seconds of this machine."""

    up: bool
    channels: tuple[Channel, ...] = ()
    """As last listed; their statuses are valid only while ``up``."""
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    last_success: float | None = None


@dataclass(frozen=True, slots=True)
class LogState:
    """Result of the last poll of the message log. ``last_success`` as in GatewayState.

    It is ``up`` if that poll worked and read all new rows.
    """

    up: bool
    view: ActivitySnapshot | None = None
    """As last read; its ages are valid only while ``up``."""
    last_success: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Both sources; None until the first poll has ended."""

    gateway: GatewayState | None = None
    log: LogState | None = None
    silence: Model | None = None
    """None until a model is learned, or always with fixed thresholds."""


def waiting_for(snapshot: Snapshot, *, with_log: bool) -> list[str]:
    """Return the sources that have not been polled yet; ``with_log`` if there is a log."""
    asked = {
        "the channel list": snapshot.gateway is not None,
        "the message log": snapshot.log is not None or not with_log,
    }
    return [source for source, done in asked.items() if not done]


class StateStore:
    """The current ``snapshot`` and the subscribers to its changes; thread-safe."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self._lock = threading.Lock()
        self._subscribers: list[Callable[[], None]] = []

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` after each update, in the thread that updates."""
        self._subscribers.append(changed)

    def update(
        self,
        *,
        gateway: GatewayState | None = None,
        log: LogState | None = None,
        silence: Model | None = None,
    ) -> None:
        """Replace the given parts of the snapshot, and notify the subscribers."""
        with self._lock:
            now = self.snapshot
            self.snapshot = Snapshot(gateway or now.gateway, log or now.log, silence or now.silence)
        for changed in self._subscribers:
            changed()


class Poller(ABC):
    """Polls one source until stopped, survives every error and logs state changes."""

    source: ClassVar[str]
    least_pause: ClassVar[float] = 0.0
    """Minimum seconds between two polls after ``hurry()``; the duration of a poll if longer."""

    def __init__(
        self, pause_seconds: float, log: logging.Logger = _log, *, clock: Clock | None = None
    ) -> None:
        self._pause_seconds = pause_seconds
        self._log = log
        self._clock = clock or Clock()
        self._hurry = threading.Event()
        self._stopped = threading.Event()
        self._trouble = ""
        self._trouble_since = 0.0
        self._refusals = 0

    def hurry(self) -> None:
        """Skip the pause: poll at once, or after ``least_pause``."""
        self._hurry.set()

    def stop(self) -> None:
        """Stop after the current poll."""
        self._stopped.set()
        self._hurry.set()

    @abstractmethod
    def poll(self) -> None:
        """Read the source once and store the result; raise the source's error."""

    @abstractmethod
    def pin_failure(self) -> None:
        """Store that the source is unavailable."""

    @abstractmethod
    def close(self) -> None:
        """Close the source."""

    def run(self) -> None:
        """Poll until stopped; raise only internal errors."""
        try:
            self._poll_until_stopped()
        except Exception:
            # Otherwise the last result would look current indefinitely.
            self.pin_failure()
            raise

    def _poll_until_stopped(self) -> None:
        while not self._stopped.is_set():
            started = self._clock.monotonic()
            self._hurry.clear()
            self.poll_once()
            # A slow source is polled less often: each call is expensive for it.
            ended = self._clock.monotonic()
            if self._stopped.is_set():
                break
            pause = max(self._backoff(), ended - started)
            if self._clock.wait(self._hurry, pause) and self.least_pause:
                least = min(pause, max(self.least_pause, ended - started))
                least = pause if self._refusals else least
                self._clock.wait(self._stopped, max(0.0, ended + least - self._clock.monotonic()))
        self.close()

    def _backoff(self) -> float:
        """Return the pause in seconds; each refusal in a row doubles it, up to a minute.

        A gateway may log each wrong secret, or block the address, and may limit the requests.
        """
        doubled = self._pause_seconds * 2.0 ** min(self._refusals, 16)
        return max(self._pause_seconds, min(doubled, _LONGEST_BACKOFF))

    def poll_once(self) -> None:
        """Poll once, store and log the result. Raises nothing."""
        refusals, self._refusals = self._refusals, 0
        try:
            self.poll()
        except GatewayError as error:
            self._refusals = refusals + 1 if error.reason in _REFUSALS else 0
            # Detail and request id can differ each time, so they do not mark a new failure.
            text = f"{error.reason}: {error.detail} (request {error.request_id})"
            self._failed(f"{error.reason} {error.http_status}", text)
        except MessageLogError as error:
            self._failed(str(error), str(error))
        except Exception as error:  # noqa: BLE001
            # Unexpected, but a dead poller would leave a snapshot that looks current.
            name = type(error).__name__
            self._failed(name, f"{name}: internal error", exc_info=True)
        else:
            self._worked()

    def _failed(self, trouble: str, text: str, *, exc_info: bool = False) -> None:
        self.pin_failure()
        if not self._trouble:
            self._trouble_since = self._clock.monotonic()
        if trouble != self._trouble:
            self._log.warning("%s cannot be read: %s", self.source, text, exc_info=exc_info)
        self._trouble = trouble

    def _worked(self) -> None:
        if self._trouble:
            seconds = self._clock.monotonic() - self._trouble_since
            self._log.info("%s can be read again, after %.0f s", self.source, seconds)
        self._trouble = ""


class GatewayPoller(Poller):
    """Polls the channel list; calls ``on_news`` when it works again or has a new channel."""

    source = "channel list"
    least_pause = 1.0

    def __init__(
        self,
        client: Gateway,
        board: StateStore,
        pause_seconds: float,
        on_news: Callable[[], None] = lambda: None,
        log: logging.Logger = _log,
    ) -> None:
        super().__init__(pause_seconds, log)
        self._client = client
        self._board = board
        self._on_news = on_news
        self._state = GatewayState(up=False)
        self._left_out: set[LeftOut] = set()

    def poll(self) -> None:
        """Read the channel list once; raise GatewayError."""
        listed = self._client.list_channels()
        before, was_up = self._state.channels, self._state.up
        # An unchanged list keeps its object, so that it need not be rendered again.
        channels = before if listed.channels == before else listed.channels
        self._state = GatewayState(
            up=True,
            channels=channels,
            left_out=listed.left_out,
            ignored=listed.ignored,
            last_success=self._clock.time(),
        )
        self._board.update(gateway=self._state)
        known = {channel.key for channel in before}
        if not was_up or not known.issuperset(channel.key for channel in channels):
            self._on_news()
        self._tell_left_out(listed.left_out)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _tell_left_out(self, left_out: Mapping[LeftOut, int]) -> None:
        """Log when the reasons for left-out entries change."""
        if left_out.keys() == self._left_out:
            return
        self._left_out = set(left_out)
        if not left_out:
            self._log.info("channel list: no entry is left out now")
            return
        told = ", ".join(f"{count} {LEFT_OUT_WORDS[reason]}" for reason, count in left_out.items())
        self._log.warning("channel list: %d entries are left out: %s", sum(left_out.values()), told)

    def pin_failure(self) -> None:
        """Store that every channel's status is unknown."""
        self._state = replace(self._state, up=False)
        self._board.update(gateway=self._state)


class LogPoller(Poller):
    """Polls the message log for the channels that the gateway lists."""

    source = "message log"

    def __init__(
        self,
        messages: MessageSource,
        board: StateStore,
        pause_seconds: float,
        observe_seconds: Callable[[float], None],
        log: logging.Logger = _log,
        *,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(pause_seconds, log, clock=clock)
        self._messages = messages
        self._board = board
        self._observe_seconds = observe_seconds
        self._state = LogState(up=False)
        self._behind = False
        self._clock_offset = 0.0

    def poll(self) -> None:
        """Read the new rows of the log; raise MessageLogError."""
        started = self._clock.monotonic()
        gateway = self._board.snapshot.gateway
        channels: tuple[Channel, ...] = gateway.channels if gateway else ()
        try:
            view = self._messages.poll(channels)
        finally:
            self._observe_seconds(self._clock.monotonic() - started)
        if view.unread:
            # Ages are unreliable while the newest messages may be unread.
            self._state = replace(self._state, up=False, view=view)
            self.hurry()
        else:
            self._state = LogState(up=True, view=view, last_success=self._clock.time())
        self._note_unread(view.unread)
        self._note_clock(view.clock_offset)
        self._board.update(log=self._state)

    def close(self) -> None:
        """Close the connections."""
        self._messages.close()

    def _note_unread(self, unread: int) -> None:
        if bool(unread) != self._behind:
            self._behind = bool(unread)
            what = f"about {unread} rows are yet to be read" if unread else "all rows are read"
            self._log.info("message log: %s", what)

    def _note_clock(self, offset: float) -> None:
        """Log once that rows are dated hours off, and again when the offset changes."""
        if abs(offset - self._clock_offset) < CLOCK_OFF_SECONDS or not offset:
            return
        self._clock_offset = offset
        self._log.warning(
            "message log: rows are dated %.1f h %s: their writer's clock or time zone differs from "
            "the database's, or they were delayed; they count from their arrival",
            abs(offset) / 3600,
            "back" if offset < 0 else "ahead",
        )

    def pin_failure(self) -> None:
        """Store that every channel's age is unknown."""
        self._state = replace(self._state, up=False)
        self._board.update(log=self._state)
