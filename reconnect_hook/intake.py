"""Stores what the alerts of a payload ask for, in one transaction and before it is answered."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

from reconnect_hook.alerts import Alert, AlertStatus, Target
from reconnect_hook.database import (
    Database,
    StateError,
    channels,
    now,
    of_channel,
    repairs,
)
from whatsapp.message_log import one_line

_DEADLOCK = 1213  # MariaDB's and MySQL's number for it
_TRIES = 5  # of a transaction that met another one on its way


class Verdict(enum.StrEnum):
    """What was done with an alert: the label ``result`` of whatsapp_reconnect_alerts_total."""

    ACCEPTED = "accepted"
    COALESCED = "coalesced"
    COOLDOWN = "cooldown"
    IGNORED = "ignored"


class _Collision(StateError):  # noqa: N818 - most often it is not an error
    """Another transaction was in the way; the same one can be tried again."""


@contextmanager
def _noticing_collisions() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise _Collision(one_line(error)) from None
    except OperationalError as error:
        if getattr(error.orig, "args", (0,))[0] != _DEADLOCK:
            raise
        raise _Collision(one_line(error)) from None


class Intake:
    """Accepts alerts for one gateway, beside every other hook on the same database."""

    def __init__(self, database: Database, gateway: str, cooldown_seconds: float) -> None:
        self._database = database
        self._gateway = gateway
        self._cooldown_seconds = cooldown_seconds

    def accept(self, alerts: Sequence[Alert]) -> list[Verdict]:
        """Store what the alerts of one payload ask for, and return a verdict for each.

        1. An alert without a target is ignored.
        2. A channel of which alerts are only resolved is looked at, which ends its episode if it is
           connected.
        3. A channel of which any alert fires gets one repair, unless one is queued or under way
           (coalesced), or it was called a short while ago (cooldown).
        """
        for _ in range(_TRIES - 1):
            try:
                return self._accept(alerts)
            except _Collision:
                continue
        return self._accept(alerts)

    def _accept(self, alerts: Sequence[Alert]) -> list[Verdict]:
        verdicts = [Verdict.IGNORED] * len(alerts)
        by_key: dict[str, list[tuple[int, Target]]] = {}
        for index, alert in enumerate(alerts):
            if alert.target is not None:
                by_key.setdefault(alert.target.key, []).append((index, alert.target))
        if not by_key:
            return verdicts
        with self._database.write() as connection, _noticing_collisions():
            at = now(connection)
            # Always in the same order, so that two payloads cannot wait for each other.
            for key in sorted(by_key):
                firing = [i for i, _ in by_key[key] if alerts[i].status is AlertStatus.FIRING]
                for index, target in by_key[key]:
                    if index in firing:
                        verdicts[index] = self._admit(connection, target, at)
                    elif not firing:
                        verdicts[index] = self._end_episode(connection, target, at)
        return verdicts

    def _admit(self, connection: sa.Connection, target: Target, at: float) -> Verdict:
        active = sa.select(repairs.c.id, repairs.c.look_only).where(
            repairs.c.gateway == self._gateway, repairs.c.active_key == target.key
        )
        found = connection.execute(active).one_or_none()
        if found is not None and not found.look_only:
            return Verdict.COALESCED
        called_at = connection.scalar(
            sa.select(channels.c.called_at).where(*of_channel(self._gateway, target.key))
        )
        # A call in the future was noted by a clock that has been put right since.
        if called_at is not None and 0 <= at - called_at < self._cooldown_seconds:
            return Verdict.COOLDOWN
        if found is None:
            self._insert(connection, target, at, look_only=False)
        else:
            # Whoever is just looking loses hold of it, and leaves the repair alone.
            connection.execute(
                sa.update(repairs)
                .where(repairs.c.id == found.id)
                .values(
                    look_only=False,
                    reason=target.reason,
                    accepted_at=at,
                    not_before=at,
                    holder=None,
                )
            )
        return Verdict.ACCEPTED

    def _end_episode(self, connection: sa.Connection, target: Target, at: float) -> Verdict:
        where = of_channel(self._gateway, target.key)
        known = connection.execute(sa.select(channels).where(*where)).one_or_none()
        if known is None:
            return Verdict.IGNORED
        active = sa.select(repairs.c.id).where(
            repairs.c.gateway == self._gateway, repairs.c.active_key == target.key
        )
        # An alert also ends when the list fails or the exporter restarts, and a silent channel's
        # when its session drops: only the gateway's list can tell whether the channel is back.
        begun = known.attempts or known.consecutive_failures or known.qr_required
        if begun and connection.scalar(active) is None:
            self._insert(connection, target, at, look_only=True)
        return Verdict.ACCEPTED

    def _insert(
        self, connection: sa.Connection, target: Target, at: float, *, look_only: bool
    ) -> None:
        connection.execute(
            sa.insert(repairs).values(
                gateway=self._gateway,
                key=target.key,
                active_key=target.key,
                channel=target.channel,
                reason=target.reason,
                look_only=look_only,
                accepted_at=at,
                not_before=at,
            )
        )
