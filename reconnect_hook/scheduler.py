"""Polls due work of all gateways with one statement, and steps their reconcilers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable
from functools import partial

from reconnect_hook.message_audit import prune_audits
from reconnect_hook.probe_limits import prune_echoes
from reconnect_hook.reconciler import GatewayReconciler, Polled
from reconnect_hook.recorder import RETRY_SECONDS
from reconnect_hook.repository import add_missing, prune_records, prune_rows, read_due
from reconnect_hook.scan_links import prune_links
from reconnect_hook.schema import gateway
from zapwatch.db import Database, StateError
from zapwatch.server import start_thread

_log = logging.getLogger("reconnect_hook")

_IDLE_SECONDS = 2.0  # between two polls without a lead here
_POLL_SECONDS = 1.0  # with a lead
_BURST_SECONDS = 0.05  # the shortest, also in an alert storm
_STATE_SECONDS = 2.0  # for returning the leads at the end
_PRUNE_SECONDS = 3600.0


def poll(database: Database) -> dict[str, Polled]:
    """Return the due work of all gateways by name; raises StateError."""
    with database.read() as connection:
        return {name: Polled(*found) for name, found in read_due(connection).items()}


def add_gateways(database: Database, names: Iterable[str]) -> None:
    """Add the gateways' missing rows; raises StateError, also without any."""
    rows = [{"gateway": name} for name in names]
    database.transact(partial(add_missing, table=gateway, rows=rows))


class Scheduler:
    """Runs the steps of all reconcilers in one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._clock = database.clock
        self._lock = threading.Lock()
        self._reconcilers: dict[str, GatewayReconciler] = {}
        self._ending: dict[GatewayReconciler, float] = {}
        self._ended = threading.Condition(self._lock)
        self._wanted = threading.Event()
        self._stopped = False
        self._alerted = True
        self._polled_at = float("-inf")
        self._pruned_at = float("-inf")
        self._thread: threading.Thread | None = None

    def add(self, reconcilers: Iterable[GatewayReconciler]) -> None:
        """Add reconcilers of gateways whose rows exist; see add_gateways()."""
        with self._lock:
            self._reconcilers |= {one.name: one for one in reconcilers}
        self.wake()

    def start(self) -> None:
        """Start the thread."""
        self._thread = start_thread("reconciler", self._run)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def wake(self) -> None:
        """Poll soon: a row was raised."""
        self._alerted = True
        self._wanted.set()

    def notify(self) -> None:
        """Step soon: mail has arrived."""
        self._wanted.set()

    def remove(self, reconcilers: Collection[GatewayReconciler], seconds: float) -> None:
        """Remove reconcilers; after ``seconds`` for calls in flight, the lead is released."""
        until = self._clock.monotonic() + seconds
        with self._lock:
            for one in reconcilers:
                one.stop()
                self._ending[one] = until
                if self._reconcilers.get(one.name) is one:
                    del self._reconcilers[one.name]
            self._wanted.set()
            # A hanging database must not block the end.
            self._ended.wait_for(
                lambda: self._ending.keys().isdisjoint(reconcilers), seconds + _STATE_SECONDS
            )

    def stop(self, seconds: float) -> None:
        """Stop the thread; calls in flight have ``seconds`` to end."""
        self.remove(list(self._reconcilers.values()), seconds)
        self._stopped = True
        self._wanted.set()
        if self._thread is not None:
            # Its connection would stay open if the database were closed before the step's end.
            self._thread.join(_STATE_SECONDS)

    def _run(self) -> None:
        while not self._stopped:
            try:
                pause = self.run_once()
            except StateError as error:
                _log.warning("state: %s; trying again", error)
                pause = RETRY_SECONDS
            except Exception:  # noqa: BLE001
                # Unexpected, but without this thread the hook would repair nothing.
                _log.exception("a fault of the hook itself")
                pause = RETRY_SECONDS
            self._wanted.wait(pause)
            self._wanted.clear()

    def run_once(self) -> float:
        """Step all reconcilers; return the seconds until the next step.

        Then raises the first exception that one of them has met.
        """
        with self._lock:
            reconcilers = list(self._reconcilers.values())
            ending = list(self._ending)
        polled = self._poll_if_due(reconcilers)
        errors: list[Exception] = []
        pauses: list[float] = []
        for one in reconcilers:
            try:
                pauses.append(one.step(polled.get(one.name) if polled else None))
            except Exception as error:  # noqa: BLE001 - the other gateways go on
                errors.append(error)
        for one in ending:
            self._end(one)
            pauses.append(_BURST_SECONDS)
        self._prune_if_due(reconcilers)
        if errors:
            raise errors[0]
        return max(0.0, min([*pauses, self._next_poll(reconcilers)]))

    def _poll_if_due(self, reconcilers: Collection[GatewayReconciler]) -> dict[str, Polled] | None:
        moment = self._clock.monotonic()
        if self._next_poll(reconcilers) > 0:
            return None
        self._alerted = False
        self._polled_at = moment
        return poll(self._database)

    def _next_poll(self, reconcilers: Collection[GatewayReconciler]) -> float:
        leads = any(one.leads for one in reconcilers)
        pause = _BURST_SECONDS if self._alerted else _POLL_SECONDS if leads else _IDLE_SECONDS
        return self._polled_at + pause - self._clock.monotonic()

    def _end(self, one: GatewayReconciler) -> None:
        """Record the answers of calls in flight, then release the lead."""
        until = self._ending[one]
        try:
            if one.leads:
                one.step(None)
            if one.is_idle or self._clock.monotonic() >= until:
                one.give_back()
                self._forget(one)
        except Exception as error:  # noqa: BLE001 - it must end
            if self._clock.monotonic() >= until:
                _log.warning("state: %s; work in progress continues in 10 s", error)
                self._forget(one)

    def _forget(self, one: GatewayReconciler) -> None:
        with self._lock:
            self._ending.pop(one, None)
            self._ended.notify_all()

    def _prune_if_due(self, reconcilers: Collection[GatewayReconciler]) -> None:
        if self._clock.monotonic() < self._pruned_at + _PRUNE_SECONDS:
            return
        self._pruned_at = self._clock.monotonic()
        if prune_records(self._database) or prune_echoes(self._database):
            self._pruned_at = float("-inf")  # the next step deletes the next chunk
            return
        prune_links(self._database)
        for one in reconcilers:
            if one.listed is not None:
                ago = self._clock.monotonic() - one.listed.asked_at
                of = (self._database, one.name, one.listed.channels, ago)
                one.forget_channels(prune_rows(*of))
                prune_audits(*of)
