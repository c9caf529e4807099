"""Operators' actions on one gateway's channels, from the page and the API."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from reconnect_hook.alerts import Alert, AlertStatus, AlertWriter, Target
from reconnect_hook.models import AskedBy, Intent, Phase, RepairCause, Step
from reconnect_hook.repository import (
    Raise,
    ensure_row,
    raise_intents,
    read_gateway,
    read_rows,
    store_rows,
    update_rows,
)
from reconnect_hook.schema import channel
from zapwatch.channels import channel_key
from zapwatch.db import Database, now, transaction


class OperatorActions:
    """Stores operators' requests; each method raises StateError."""

    def __init__(
        self, database: Database, gateway: str, writer: AlertWriter, wake: Callable[[], None]
    ) -> None:
        """Call ``wake`` after each commit of new work."""
        self._database = database
        self._gateway = gateway
        self._writer = writer
        self._wake = wake

    def reconnect(self, name: str) -> bool:
        """Queue a repair without backoff; return False if the channel is paused.

        As with alerts, a channel has one repair at a time.
        """
        return self._ask(name, Intent.FORCE, RepairCause.MANUAL)

    def probe_now(self, name: str) -> bool:
        """Queue a probe; return False if the channel is paused."""
        return self._ask(name, Intent.PROBE, RepairCause.ASKED)

    def _ask(self, name: str, intent: Intent, cause: RepairCause) -> bool:
        key = channel_key(name)

        def work(connection: sa.Connection, at: float) -> bool:
            look = read_gateway(connection, self._gateway).look
            raised = Raise(key, name, intent, cause, at, at, look, AskedBy.PAGE)
            row = read_rows(connection, self._gateway, [key], lock=True).get(key)
            if row is not None and row.is_paused(at):
                return False
            if row is not None and row.in_work:
                return True  # the repair in progress serves this request
            raise_intents(connection, self._gateway, [raised])
            if row is not None and row.intent <= intent and row.phase is not Phase.PROBING:
                # A waiting row gets the operator's cause and time, and no postponed step.
                row.cause, row.asked_by, row.since = cause, AskedBy.PAGE, at
                if row.step is Step.POSTPONED:
                    row.step = row.deadline = None
                store_rows(connection, self._gateway, [row])
            return True

        accepted = self._database.transact_at(work)
        self._wake()
        return accepted

    def recheck(self, name: str) -> None:
        """Request a look, which ends the channel's episode if it is connected."""
        target = Target(name, RepairCause.MANUAL)
        self._writer.accept([Alert(AlertStatus.RESOLVED, target)])

    @transaction
    def pause(self, connection: sa.Connection, name: str, seconds: float | None) -> None:
        """Suspend the channel's repairs for ``seconds``, or until resume() if None."""
        until = None if seconds is None else now(connection) + seconds
        ensure_row(connection, self._gateway, channel_key(name), name)
        self._set_pause(connection, name, paused=True, paused_until=until)

    def resume(self, name: str) -> None:
        """End the pause; waiting work becomes due."""

        def work(connection: sa.Connection, at: float) -> None:
            due_at = sa.case((channel.c.next_at.is_not(None), at))
            self._set_pause(connection, name, paused=False, paused_until=None, next_at=due_at)

        self._database.transact_at(work)
        self._wake()

    def _set_pause(self, connection: sa.Connection, name: str, **values: object) -> None:
        update_rows(connection, self._gateway, [channel_key(name)], **values)
