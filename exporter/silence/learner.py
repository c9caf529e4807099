"""The learner: a thread that learns silence thresholds once a day, slowly, beside the polls."""

from __future__ import annotations

import logging
import threading

from exporter.pollers import StateStore
from exporter.silence.model import Bounds, Model, ModelError, learn, load, save
from zapwatch.clock import SETTLED_SECONDS, Clock
from zapwatch.config import GatewaySettings
from zapwatch.messages.message import MessageLogError
from zapwatch.messages.source import MessageSource
from zapwatch.server import start_thread

_log = logging.getLogger("exporter")

_DAY = 86400.0
_LOOK_SECONDS = 1.0  # between two checks whether learning is due
_RETRY_SECONDS = 600.0  # after a failure
_MOST_PAUSE_SECONDS = 1.0


class Learner:
    """Learns each listed channel's silence threshold from its history, for the state store.

    The state file keeps the model across restarts.
    """

    def __init__(
        self,
        gateway: GatewaySettings,
        bounds: Bounds,
        messages: MessageSource,
        board: StateStore,
        log: logging.Logger = _log,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._path = gateway.silence_state_file
        self._bounds = bounds
        self._messages = messages
        self._board = board
        self._log = log
        self._clock = clock or Clock()
        self._stopped = threading.Event()
        self._not_before = 0.0

    def start(self) -> None:
        """Load the saved model, and start a daemon thread, which does not block the exit."""
        self.remember()
        start_thread("silence", self._run)

    def stop(self) -> None:
        """Stop; a model that is being learned is discarded."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._clock.wait(self._stopped, _LOOK_SECONDS):
            if self.is_due():
                self.learn_once()

    def remember(self) -> None:
        """Load the model that was saved before the restart."""
        try:
            model = load(self._path, self._bounds)
        except ModelError as error:
            self._log.warning("the silence profile is discarded and learned again: %s", error)
        else:
            if model is not None:
                self._board.update(silence=model)
                self._not_before = SETTLED_SECONDS

    def is_due(self) -> bool:
        """Whether channels are listed, no backoff runs, and the model is missing or a day old."""
        gateway, model = self._board.snapshot.gateway, self._board.snapshot.silence
        if gateway is None or not gateway.channels or self._clock.monotonic() < self._not_before:
            return False
        # A clock that was set back must not keep the old model indefinitely.
        return model is None or not 0 <= self._clock.time() - model.learned_at < _DAY

    def learn_once(self) -> None:
        """Learn, store and save the model; log the result. Raises nothing."""
        self._not_before = self._clock.monotonic() + _RETRY_SECONDS
        try:
            self._learn()
        except MessageLogError as error:
            self._log.warning("silence thresholds cannot be learned: %s", error)
        except OSError as error:
            self._log.warning("%s cannot be written: %s", self._path, error.strerror)
        except Exception:  # noqa: BLE001
            # Unexpected, but the next attempt may succeed.
            self._log.exception("silence thresholds cannot be learned: internal error")

    def _learn(self) -> None:
        started = self._clock.monotonic()
        pace = _Pace(self._clock)
        gateway, known = self._board.snapshot.gateway, self._board.snapshot.silence
        wanted = {channel.key for channel in gateway.channels} if gateway else set()
        # A gateway that is starting does not list all its channels yet.
        wanted |= known.channels.keys() if known else set()
        try:
            histories = self._messages.histories(wanted, pace.pause)
        finally:
            # The connection is not needed until tomorrow.
            self._messages.close()
        channels = learn(histories, self._bounds, pause=pace.pause)
        if self._stopped.is_set():
            return  # the settings have changed: discard the model
        model = Model(self._clock.time(), channels)
        self._board.update(silence=model)
        self._log.info(
            "silence: learned thresholds of %d channels from %d messages, in %.0f s",
            len(channels),
            model.messages,
            self._clock.monotonic() - started,
        )
        save(self._path, model, self._bounds)


class _Pace:
    """Pauses as long as it works, so that neither database nor scrapes wait for the learner."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = self._clock.monotonic()

    def pause(self) -> None:
        """Sleep as long as the step before took, at most a second."""
        self._clock.sleep(min(_MOST_PAUSE_SECONDS, self._clock.monotonic() - self._since))
        self._since = self._clock.monotonic()
