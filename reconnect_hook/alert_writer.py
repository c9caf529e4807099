"""Stores what alerts ask for before they are answered, many payloads in one transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

import sqlalchemy as sa

from reconnect_hook.alerts import Alert, AlertStatus
from reconnect_hook.backoff import Backoff
from reconnect_hook.dedup import Disposition, Raise, admit
from reconnect_hook.models import AskedBy, ChannelRow, GatewayRow
from reconnect_hook.repository import raise_intents, read_gateway, read_rows, transact
from zapwatch.db import Database, StateError, UnavailableError, now


class _PendingPayload:
    """One payload that is to be stored, and in the end its dispositions or its error."""

    def __init__(self, alerts: Sequence[Alert]) -> None:
        self.alerts = alerts
        self.dispositions: list[Disposition] = []
        self.raises: list[Raise] = []
        self.done = False
        self.error: StateError | None = None

    def finish(self, error: StateError | None = None) -> None:
        """Hand the result, or the error, to whoever waits."""
        if not self.done:
            self.done, self.error = True, error


class AlertWriter:
    """Accepts alerts for one gateway, beside every other hook on the same database."""

    def __init__(
        self,
        database: Database,
        gateway: str,
        backoff: Backoff,
        wake: Callable[[], None] = lambda: None,
        asked_by: AskedBy = AskedBy.ALERTMANAGER,
    ) -> None:
        """``wake`` is called when something was stored that is to be worked on."""
        self._database = database
        self._gateway = gateway
        self._backoff = backoff
        self._wake = wake
        self._asked_by = asked_by
        self._waiting: list[_PendingPayload] = []
        self._list_lock = threading.Lock()
        self._work_lock = threading.Lock()

    def accept(self, alerts: Sequence[Alert]) -> list[Disposition]:
        """Store what the alerts of one payload ask for, and return how each is counted.

        1. An alert without a target is ignored.
        2. A channel of which alerts are only resolved is looked at, which ends its episode if it is
           connected.
        3. A channel of which any alert fires gets one repair, unless one is queued or under way
           (coalesced). If it was called a short while ago, the repair waits (cooldown).

        Raises StateError: then nothing of this payload was accepted.
        """
        if all(alert.target is None for alert in alerts):
            return [Disposition.IGNORED] * len(alerts)
        mine = _PendingPayload(alerts)
        with self._list_lock:
            self._waiting.append(mine)
        # A transaction takes as long for one payload as for many. Whoever gets the lock does the
        # work for all that wait by then, and those who waited behind find it done.
        with self._work_lock:
            if not mine.done:
                self._work(self._take())
        if mine.error is not None:
            raise mine.error
        return mine.dispositions

    def _take(self) -> list[_PendingPayload]:
        with self._list_lock:
            taken, self._waiting = self._waiting, []
        return taken

    def _work(self, payloads: list[_PendingPayload]) -> None:
        try:
            # In a storm nearly all alerts are known already, and need no write.
            self._admit(payloads)
            self._store([payload for payload in payloads if payload.raises])
            for payload in payloads:
                payload.finish()
        except UnavailableError as error:
            # Those who have come meanwhile need not wait for the same.
            self._fail(payloads + self._take(), error)
        except StateError as error:
            self._fail(payloads, error)
        finally:
            self._fail(payloads, StateError("a fault of the hook itself"))

    @staticmethod
    def _fail(payloads: list[_PendingPayload], error: StateError) -> None:
        for payload in payloads:
            payload.finish(error)

    def _admit(self, payloads: list[_PendingPayload]) -> None:
        keys = {alert.target.key for one in payloads for alert in one.alerts if alert.target}
        with self._database.read() as connection:
            # The look's number first: what is raised by it must not seem newer than it is.
            gateway = read_gateway(connection, self._gateway)
            rows = read_rows(connection, self._gateway, keys)
            # Only now: what another hook has just stored must not seem to be of the future.
            at = now(connection)
        rows = {key: row.clamped(at, self._backoff.longest) for key, row in rows.items()}
        for payload in payloads:
            self._admit_payload(payload, gateway, rows, at)

    def _admit_payload(
        self,
        payload: _PendingPayload,
        gateway: GatewayRow,
        rows: dict[str, ChannelRow],
        at: float,
    ) -> None:
        firing = {
            alert.target.key
            for alert in payload.alerts
            if alert.target and alert.status is AlertStatus.FIRING
        }
        for alert in payload.alerts:
            target, disposition, raised = alert.target, Disposition.IGNORED, None
            # Of one payload, what fires says more than what is resolved.
            if target and (alert.status is AlertStatus.FIRING or target.key not in firing):
                row = rows.get(target.key)
                disposition, raised = admit(
                    row, gateway, alert.status, target, at, self._backoff, self._asked_by
                )
            payload.dispositions.append(disposition)
            if raised is not None:
                payload.raises.append(raised)
                rows[raised.key] = raised.applied_to(rows.get(raised.key))

    def _store(self, payloads: list[_PendingPayload]) -> None:
        if not payloads:
            return
        try:
            self._raise(raised for payload in payloads for raised in payload.raises)
        except UnavailableError:
            raise
        except StateError as error:
            if len(payloads) == 1:
                payloads[0].finish(error)
                return
            # One that no database would take must not be the others' end.
            for payload in payloads:
                self._store([payload])
        else:
            self._wake()

    def _raise(self, raises: Iterable[Raise]) -> None:
        stored = list(raises)

        def work(connection: sa.Connection) -> None:
            raise_intents(connection, self._gateway, stored)

        transact(self._database, work)
