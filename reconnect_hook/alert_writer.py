"""Stores what alerts ask for before they are answered, many payloads in one transaction."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

from reconnect_hook.alerts import Alert, AlertStatus, RepairCause
from reconnect_hook.backoff import Backoff
from reconnect_hook.dedup import ActiveJob, ChannelState, Disposition, admit
from reconnect_hook.schema import channels, repairs, unfinished
from zapwatch.db import Database, StateError, UnavailableError, now, one_line

_DEADLOCK = 1213  # MariaDB's and MySQL's number for it
_TRIES = 8  # of a transaction that met another one on its way
_CHUNK = 500  # keys a statement
# Made once: making them takes as long as executing them.
_KEYS: sa.BindParameter[Any] = sa.bindparam("keys", expanding=True)
_CHANNELS = sa.select(
    channels.c.key,
    channels.c.attempts,
    channels.c.consecutive_failures,
    channels.c.qr_required,
    channels.c.called_at,
    channels.c.seen_at,
    channels.c.reason,
).where(channels.c.gateway == sa.bindparam("gateway"), channels.c.key.in_(_KEYS))
_QUEUE = sa.select(
    repairs.c.id,
    repairs.c.key,
    repairs.c.channel,
    repairs.c.reason,
    repairs.c.look_only,
    repairs.c.accepted_at,
    repairs.c.due_at,
    repairs.c.repair_at,
    repairs.c.holder,
).where(repairs.c.gateway == sa.bindparam("gateway"), repairs.c.active_key.in_(_KEYS))


class _CollisionError(StateError):
    """Another transaction was in the way; the same one can be tried again."""


class _PendingPayload:
    """One payload that is to be stored, and in the end its verdicts or its error."""

    def __init__(self, alerts: Sequence[Alert]) -> None:
        self.alerts = alerts
        self.verdicts: list[Disposition] | None = None
        self.error: StateError | None = None

    @property
    def done(self) -> bool:
        return self.verdicts is not None or self.error is not None


class AlertWriter:
    """Accepts alerts for one gateway, beside every other hook on the same database."""

    def __init__(
        self, database: Database, gateway: str, pauses: Backoff, *, keep: bool = True
    ) -> None:
        """Take alerts; those that come in a pause are kept until its end if ``keep`` says so."""
        self._database = database
        self._gateway = gateway
        self._pauses = pauses
        self._keep = keep
        self._waiting: list[_PendingPayload] = []
        self._list_lock = threading.Lock()
        self._work_lock = threading.Lock()

    def accept(self, alerts: Sequence[Alert]) -> list[Disposition]:
        """Store what the alerts of one payload ask for, and return a verdict for each.

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
        assert mine.verdicts is not None  # noqa: S101 - done, and no error
        return mine.verdicts

    def _take(self) -> list[_PendingPayload]:
        with self._list_lock:
            taken, self._waiting = self._waiting, []
        return taken

    def _work(self, payloads: list[_PendingPayload]) -> None:
        try:
            # In a storm nearly all alerts are known already, and need no write.
            new = self._judge(payloads)
            if new:
                self._store(new)
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
            if not payload.done:
                payload.error = error

    def _judge(self, payloads: list[_PendingPayload]) -> list[_PendingPayload]:
        """Answer the payloads that change nothing, and return the others."""
        with self._database.read() as connection:
            view = _Batch(connection, self._gateway, [payload.alerts for payload in payloads])
        new = []
        for payload in payloads:
            verdicts = view.judge(payload.alerts, self._pauses, keep=self._keep)
            if view.changes(payload.alerts):
                new.append(payload)
            else:
                payload.verdicts = verdicts
        return new

    def _store(self, payloads: list[_PendingPayload]) -> None:
        try:
            self._try(payloads)
        except UnavailableError:
            raise
        except StateError as error:
            if len(payloads) == 1:
                payloads[0].error = error
                return
            # One that no database would take must not be the others' end.
            for payload in payloads:
                self._store([payload])

    def _try(self, payloads: list[_PendingPayload]) -> None:
        for _ in range(_TRIES - 1):
            try:
                return self._transact(payloads)
            except _CollisionError:
                continue
        return self._transact(payloads)

    def _transact(self, payloads: list[_PendingPayload]) -> None:
        with self._database.write() as connection, _noticing_collisions():
            view = _Batch(connection, self._gateway, [payload.alerts for payload in payloads])
            verdicts = [
                view.judge(payload.alerts, self._pauses, keep=self._keep) for payload in payloads
            ]
            view.store()
        for payload, its_verdicts in zip(payloads, verdicts, strict=True):
            payload.verdicts = its_verdicts


class _Batch:
    """What one transaction knows of the channels that some payloads name."""

    def __init__(
        self, connection: sa.Connection, gateway: str, payloads: Sequence[Sequence[Alert]]
    ) -> None:
        self._connection = connection
        self._gateway = gateway
        keys = {alert.target.key for some in payloads for alert in some if alert.target}
        # Always in the same order, so that two transactions cannot wait for each other.
        self._known = {key: ChannelState() for key in sorted(keys)}
        self._was: dict[str, tuple[bool, RepairCause]] = {}
        names = list(self._known)
        # The queue first: a repair that ends in between is then one that is under way, or is known
        # to have just been. Otherwise it would be neither, and another would follow at once.
        for begin in range(0, len(names), _CHUNK):
            self._read_queue(names[begin : begin + _CHUNK])
            self._read_channels(names[begin : begin + _CHUNK])
        # Only now: what another hook has just stored must not seem to be of the future.
        self._at = now(connection)

    def _read_channels(self, keys: Sequence[str]) -> None:
        for row in self._connection.execute(_CHANNELS, {"gateway": self._gateway, "keys": keys}):
            known = self._known[row.key]
            known.listed = True
            known.episode = bool(row.attempts or row.consecutive_failures or row.qr_required)
            known.attempts = row.attempts
            known.called_at = row.called_at
            known.seen_at = row.seen_at
            known.reason = RepairCause(row.reason) if row.reason else None

    def _read_queue(self, keys: Sequence[str]) -> None:
        for row in self._connection.execute(_QUEUE, {"gateway": self._gateway, "keys": keys}):
            self._known[row.key].active = ActiveJob(
                row.id,
                row.channel,
                RepairCause(row.reason),
                row.look_only,
                row.accepted_at,
                row.due_at,
                row.repair_at,
                row.holder is not None,
            )
            self._was[row.key] = row.look_only, RepairCause(row.reason)

    def judge(self, alerts: Sequence[Alert], pauses: Backoff, *, keep: bool) -> list[Disposition]:
        """Return the verdicts on one payload, and note what is to be stored."""
        verdicts = [Disposition.IGNORED] * len(alerts)
        firing = {
            alert.target.key
            for alert in alerts
            if alert.target and alert.status is AlertStatus.FIRING
        }
        for index, alert in enumerate(alerts):
            target = alert.target
            # Of one payload, what fires says more than what is resolved.
            if target and (alert.status is AlertStatus.FIRING or target.key not in firing):
                known = self._known[target.key]
                verdicts[index] = admit(known, alert.status, target, self._at, pauses, keep=keep)
        return verdicts

    def changes(self, alerts: Sequence[Alert]) -> bool:
        """Whether there is anything to store for one of these alerts' channels."""
        keys = {alert.target.key for alert in alerts if alert.target}
        rows = [self._known[key].active for key in keys]
        return any(row.changed for row in rows if row)

    def store(self) -> None:
        """Store it; raise what the database raises where another was quicker."""
        rows = []
        for key, known in self._known.items():
            active = known.active
            if active is None or not active.changed:
                continue
            values: dict[str, object] = {
                "channel": active.channel,
                "reason": active.reason,
                "look_only": active.look_only,
                "accepted_at": active.accepted_at,
                "due_at": active.due_at,
                "repair_at": active.repair_at,
            }
            if active.id is None:
                rows.append({"gateway": self._gateway, "key": key, "active_key": key, **values})
            else:
                self._update(key, active, values)
        if rows:
            self._connection.execute(sa.insert(repairs), rows)

    def _update(self, key: str, active: ActiveJob, values: dict[str, object]) -> None:
        if active.let_go:
            values["holder"] = None
        was_look, was_reason = self._was[key]
        done = self._connection.execute(
            sa.update(repairs)
            .where(
                repairs.c.id == active.id,
                unfinished(self._gateway),
                repairs.c.look_only == was_look,
                repairs.c.reason == was_reason,
                # A repair that somebody has claimed meanwhile is nobody else's to change.
                sa.true() if was_look or was_reason.is_probe else repairs.c.holder.is_(None),
            )
            .values(values)
        )
        if done.rowcount != 1:
            raise _CollisionError("another hook has changed the queue")


@contextmanager
def _noticing_collisions() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise _CollisionError(one_line(error)) from None
    except OperationalError as error:
        if getattr(error.orig, "args", (0,))[0] != _DEADLOCK:
            raise
        raise _CollisionError(one_line(error)) from None
