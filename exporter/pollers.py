"""The two threads that ask the sources, each at its own pace, and pin what they find."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar

from exporter.snapshot import GatewayState, LogState, StateStore
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
from zapwatch.messages.source import MessageSource
from zapwatch.messages.webhook_log import MessageLogError

_log = logging.getLogger("exporter")

_LONGEST_BACKOFF = 60.0  # seconds between two polls of a gateway that refuses the secret


class Poller(ABC):
    """Polls for as long as the program runs, whatever happens, and logs when that changes."""

    source: ClassVar[str]
    least_pause: ClassVar[float] = 0.0
    """Seconds between two polls even in a hurry, or as many as a poll takes."""

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
        self._is_dead = False
        self._refusals = 0

    @property
    def is_dead(self) -> bool:
        """Whether the thread has ended without having been told to."""
        return self._is_dead

    def start(self) -> None:
        """Begin, in a thread that does not keep the program from ending."""
        threading.Thread(target=self._run, name=self.source, daemon=True).start()

    def hurry(self) -> None:
        """Let the next poll follow at once, or after ``least_pause``."""
        self._hurry.set()

    def stop(self) -> None:
        """End after the poll that is under way."""
        self._stopped.set()
        self._hurry.set()

    @abstractmethod
    def poll(self) -> None:
        """Ask the source once and pin the answer; raise where it failed."""

    @abstractmethod
    def pin_failure(self) -> None:
        """Pin that the source could not be asked."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the source."""

    def _run(self) -> None:
        try:
            self._poll_until_stopped()
        except Exception:  # noqa: BLE001 - a thread has nobody to tell
            self._is_dead = True
            # What was found last would look current for ever.
            self.pin_failure()
            self._log.exception("%s is polled no more, a fault of the exporter itself", self.source)

    def _poll_until_stopped(self) -> None:
        while not self._stopped.is_set():
            started = self._clock.monotonic()
            self._hurry.clear()
            self.poll_once()
            # A source that takes long to answer is asked less often: the call is dear for it.
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
        """Return the pause, which a secret that is refused doubles each time, up to a minute.

        A gateway may write a line, or lock an address out, for each wrong one.
        """
        doubled = self._pause_seconds * 2.0 ** min(self._refusals, 16)
        return max(self._pause_seconds, min(doubled, _LONGEST_BACKOFF))

    def poll_once(self) -> None:
        """Poll; pin and log how it went. Raises nothing."""
        refusals, self._refusals = self._refusals, 0
        try:
            self.poll()
        except GatewayError as error:
            self._refusals = refusals + 1 if error.reason is GatewayErrorKind.UNAUTHORIZED else 0
            # The same trouble may be told in new words each time: they can hold a time or an id.
            text = f"{error.reason}: {error.detail} (request {error.request_id})"
            self._failed(f"{error.reason} {error.http_status}", text)
        except MessageLogError as error:
            self._failed(str(error), str(error))
        except Exception as error:  # noqa: BLE001
            # Unforeseen, but a poller that dies would leave a snapshot that looks alive.
            name = type(error).__name__
            self._failed(name, f"{name}, a fault of the exporter itself", exc_info=True)
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
    """Lists the channels. ``on_new_channels`` is called when some are listed for the first time."""

    source = "channel list"
    least_pause = 1.0

    def __init__(
        self,
        client: Gateway,
        board: StateStore,
        pause_seconds: float,
        on_new_channels: Callable[[], None] = lambda: None,
        log: logging.Logger = _log,
        *,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(pause_seconds, log, clock=clock)
        self._client = client
        self._board = board
        self._on_new_channels = on_new_channels
        self._state = GatewayState(up=False)
        self._left_out: set[LeftOut] = set()

    def poll(self) -> None:
        """List the channels once; raise GatewayError."""
        listed = self._client.list_channels()
        before = self._state.channels
        # The same object where nothing has changed: then it need not be rendered again.
        channels = before if listed.channels == before else listed.channels
        self._state = GatewayState(
            up=True,
            channels=channels,
            left_out=listed.left_out,
            ignored=listed.ignored,
            last_success=self._clock.time(),
        )
        self._board.update(gateway=self._state)
        if not {channel.key for channel in before}.issuperset(c.key for c in channels):
            self._on_new_channels()
        self._tell_left_out(listed.left_out)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _tell_left_out(self, left_out: Mapping[LeftOut, int]) -> None:
        """Log when entries are left out for other reasons than before."""
        if left_out.keys() == self._left_out:
            return
        self._left_out = set(left_out)
        if not left_out:
            self._log.info("channel list: no entry is left out any more")
            return
        told = ", ".join(f"{count} {LEFT_OUT_WORDS[reason]}" for reason, count in left_out.items())
        self._log.warning("channel list: %d entries are left out: %s", sum(left_out.values()), told)

    def pin_failure(self) -> None:
        """Pin that nothing is known of any channel's status."""
        self._state = replace(self._state, up=False)
        self._board.update(gateway=self._state)


class LogPoller(Poller):
    """Reads the message log for the channels that the gateway lists."""

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
        """Read what is new in the log; raise MessageLogError."""
        started = self._clock.monotonic()
        gateway = self._board.snapshot.gateway
        channels: tuple[Channel, ...] = gateway.channels if gateway else ()
        try:
            view = self._messages.poll(channels)
        finally:
            self._observe_seconds(self._clock.monotonic() - started)
        if view.unread:
            # So long as the newest messages may be unread, no age is known to be right.
            self._state = replace(self._state, up=False, view=view)
            self.hurry()
        else:
            self._state = LogState(up=True, view=view, last_success=self._clock.time())
        self._note_unread(view.unread)
        self._note_clock(view.clock_offset)
        self._board.update(log=self._state)

    def close(self) -> None:
        """Let go of the connections."""
        self._messages.close()

    def _note_unread(self, unread: int) -> None:
        if bool(unread) != self._behind:
            self._behind = bool(unread)
            what = f"about {unread} rows are yet to be read" if unread else "all rows are read"
            self._log.info("message log: %s", what)

    def _note_clock(self, offset: float) -> None:
        """Log once that rows are dated hours off, and again where by another time."""
        if abs(offset - self._clock_offset) < CLOCK_OFF_SECONDS or not offset:
            return
        self._clock_offset = offset
        self._log.warning(
            "message log: rows are dated %.1f h %s: their writer's clock or time zone differs from "
            "the database's, or they were kept back; they count from when they came",
            abs(offset) / 3600,
            "back" if offset < 0 else "ahead",
        )

    def pin_failure(self) -> None:
        """Pin that nothing is known of any channel's age."""
        self._state = replace(self._state, up=False)
        self._board.update(log=self._state)
