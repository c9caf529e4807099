"""What people ask for: a repair now, a pause of the repairs, a look whether a channel is back."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from reconnect_hook.alerts import Alert, AlertStatus, Reason, Target
from reconnect_hook.state.admission import Verdict
from reconnect_hook.state.database import Database, now
from reconnect_hook.state.intake import Intake
from reconnect_hook.state.schema import is_probe, paused, pauses, repairs, unfinished
from whatsapp.channels import channel_key


class Desk:
    """Takes what people ask of one gateway's channels; each method raises StateError."""

    def __init__(
        self, database: Database, gateway: str, intake: Intake, wake: Callable[[], None]
    ) -> None:
        """Queue repairs by ``intake``; ``wake`` says that there is something in the queue."""
        self._database = database
        self._gateway = gateway
        self._intake = intake
        self._wake = wake

    def reconnect(self, channel: str) -> bool:
        """Have the channel repaired now; False where its repairs are paused.

        The repair goes through the same queue as that of an alert, so that there is one at a time;
        but it does not wait for the end of the time that a channel is left alone between two.
        """
        target = Target(channel, Reason.MANUAL)
        if self._is_paused(target.key):
            return False
        (verdict,) = self._intake.accept([Alert(AlertStatus.FIRING, target)])
        if verdict is Verdict.COOLDOWN:
            self._hasten(target.key)
        self._wake()
        return True

    def ask(self, channel: str) -> bool:
        """Have the channel asked now whether it is alive; False where its repairs are paused."""
        target = Target(channel, Reason.ASKED)
        if self._is_paused(target.key):
            return False
        self._intake.accept([Alert(AlertStatus.FIRING, target)])
        with self._database.write() as connection:
            at = now(connection)
            connection.execute(
                sa.update(repairs)
                .where(
                    unfinished(self._gateway),
                    repairs.c.active_key == target.key,
                    repairs.c.holder.is_(None),
                    is_probe(),
                )
                .values(reason=Reason.ASKED, accepted_at=at, due_at=at)
            )
        self._wake()
        return True

    def look(self, channel: str) -> None:
        """Have the list looked at, which ends the channel's episode if it is connected."""
        target = Target(channel, Reason.MANUAL)
        self._intake.accept([Alert(AlertStatus.RESOLVED, target)])
        self._wake()

    def pause(self, channel: str, seconds: float | None) -> None:
        """Call nothing for the channel for so long, or until resume() where that is None."""
        key = channel_key(channel)
        with self._database.write() as connection:
            until = None if seconds is None else now(connection) + seconds
            self._delete(connection, key)
            row = {"gateway": self._gateway, "key": key, "channel": channel, "until": until}
            connection.execute(sa.insert(pauses).values(row))

    def resume(self, channel: str) -> None:
        """End the pause; what waited for its end begins."""
        with self._database.write() as connection:
            self._delete(connection, channel_key(channel))
        self._wake()

    def _delete(self, connection: sa.Connection, key: str) -> None:
        connection.execute(
            sa.delete(pauses).where(pauses.c.gateway == self._gateway, pauses.c.key == key)
        )

    def _is_paused(self, key: str) -> bool:
        with self._database.read() as connection:
            row = sa.select(pauses.c.key).where(
                paused(self._gateway, now(connection)), pauses.c.key == key
            )
            return connection.scalar(row) is not None

    def _hasten(self, key: str) -> None:
        with self._database.write() as connection:
            at = now(connection)
            connection.execute(
                sa.update(repairs)
                .where(
                    unfinished(self._gateway),
                    repairs.c.active_key == key,
                    repairs.c.holder.is_(None),
                    repairs.c.look_only.is_(False),
                    repairs.c.due_at > at,
                )
                .values(reason=Reason.MANUAL, accepted_at=at, due_at=at)
            )
