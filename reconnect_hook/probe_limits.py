"""What is remembered of probes, and the bounds that hold for all hooks on one state.

Everything is noted before it is done: a hook that dies in between has done less than is noted.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from reconnect_hook.schema import echoes, is_probe, probes, repairs, unfinished
from zapwatch.channels import Channel
from zapwatch.config.gateway import ProbeKind
from zapwatch.config.settings import ProbeSettings
from zapwatch.db import Database, now

ECHO_GAP_SECONDS = 10.0
"""Between two echoes of one gateway, whoever sends them: no burst after an outage."""

_OPEN_SECONDS = 600.0  # for which an echo whose hook died may still come

_DAY = 86400.0
_KEEP_SECONDS = 2 * _DAY
_FORGET_MOST = 1000  # rows a transaction


class ProbeOutcome(enum.StrEnum):
    """How a probe ended: the label ``outcome`` of whatsapp_channel_probes_total."""

    PASSED = "passed"
    FAILED = "failed"
    """The channel is dead, and is repaired."""
    OTHER_FAILED = "other_failed"
    """The channel that was to send the echo is dead, and is repaired."""
    UNDECIDED = "undecided"
    """An echo was lost, and which of the two is dead did not show."""


class LimitReason(enum.Enum):
    """Why an echo must not be sent."""

    HALTED = "an echo of it was lost, and it has not been repaired since"
    TOO_MANY = "it has taken part in as many echoes today as it may"
    TOO_SOON = "another echo has just been sent"
    SAME_NUMBER = "the other one has the same number, so it would write to itself"
    NO_NUMBER = "its number is not set, and the gateway does not tell it"


_HEARD_ITSELF = (echoes.c.sender == echoes.c.receiver) & echoes.c.heard.is_(True)


@dataclass(frozen=True, slots=True)
class Probed:
    """How the last probe of a channel ended; ``at`` in Unix seconds by the database's clock."""

    channel: str
    kind: ProbeKind
    outcome: ProbeOutcome
    at: float


@dataclass(frozen=True, slots=True)
class Echo:
    """An echo between two channel keys, as far as is known of it."""

    sender: str
    receiver: str
    token: str
    seconds: float
    """Since it was sent, or was about to be."""
    sent: bool
    """Whether it is lost if it is not heard; else it may not have been sent, or not been logged."""
    heard: bool | None
    """None: whoever listened for it has died."""


class ProbeRepository:
    """One gateway's probes; each method is one transaction and raises StateError.

    A clock that is put back frees nothing: what it has noted in its future counts as done just now.
    One that jumps ahead frees nothing in the hook that has itself done what is noted.
    """

    def __init__(self, database: Database, gateway: str, settings: ProbeSettings) -> None:
        self._database = database
        self.clock = database.clock
        self._gateway = gateway
        self._settings = settings
        self._lock = threading.Lock()
        self._began: dict[str, float] = {}
        self._sent: deque[tuple[float, str, str]] = deque()

    def begin(self, key: str, channel: str, job: int | None, *, by_hand: bool = False) -> float:
        """Note that a probe begins; return for how many seconds it must not yet, 0 if it may.

        A ``job`` that has begun before, and died, may go on. One that a person wants need not wait,
        nor a probe that is none of the queue's (None).
        """
        pause = self._settings.pause_minutes * 60
        with self._lock, self._database.write() as connection:
            at = now(connection)
            row = self._row(connection, key)
            resumes = job is not None and row is not None and row.job == job
            waits = job is not None and not by_hand and not resumes
            if waits and row is not None and row.began_at is not None:
                if row.began_at > at:
                    self._note(connection, key, channel, began_at=at)
                wait: float = min(row.began_at, at) + pause - at
                ran = self.clock.monotonic() - self._began.get(key, float("-inf"))
                wait = max(wait, pause - ran)
                if wait > 0:
                    return wait
            if not resumes:
                self._note(connection, key, channel, began_at=at, job=job)
                self._began[key] = self.clock.monotonic()
        return 0.0

    def reserve(
        self, sender: str, receiver: str, token: str, *, again: bool = False
    ) -> LimitReason | None:
        """Note that an echo is about to be sent between two channel keys, if that may be.

        ``again``: also where an echo of theirs was lost.
        """
        with self._lock, self._database.write() as connection:
            at = now(connection)
            mine = echoes.c.gateway == self._gateway
            # One at a time: the transactions of other hooks wait here.
            lock = sa.select(probes.c.key).where(probes.c.gateway == self._gateway)
            connection.execute(lock.with_for_update()).all()
            connection.execute(
                sa.update(echoes).where(mine, echoes.c.sent_at > at).values(sent_at=at)
            )
            halted = sa.select(probes.c.key).where(
                probes.c.gateway == self._gateway,
                probes.c.key.in_([sender, receiver]),
                probes.c.halted.is_(True),
            )
            if not again and connection.scalar(halted.limit(1)) is not None:
                return LimitReason.HALTED
            if self._is_too_many(connection, at, sender, receiver):
                return LimitReason.TOO_MANY
            last = connection.scalar(sa.select(sa.func.max(echoes.c.sent_at)).where(mine))
            if last is not None and at - last < ECHO_GAP_SECONDS:
                return LimitReason.TOO_SOON
            row = {"gateway": self._gateway, "sender": sender, "receiver": receiver}
            connection.execute(sa.insert(echoes).values(**row, token=token, sent_at=at))
            self._sent.append((self.clock.monotonic(), sender, receiver))
        return None

    def _is_too_many(
        self, connection: sa.Connection, at: float, sender: str, receiver: str
    ) -> bool:
        most = self._settings.echoes_per_day
        since = self.clock.monotonic() - _DAY
        while self._sent and self._sent[0][0] < since:
            self._sent.popleft()
        for key in {sender, receiver}:
            lately = sa.select(sa.func.count()).where(
                echoes.c.gateway == self._gateway,
                echoes.c.sent_at > at - _DAY,
                (echoes.c.sender == key) | (echoes.c.receiver == key),
            )
            here = sum(key in pair for _, *pair in self._sent)
            if max(connection.scalar(lately) or 0, here) >= most:
                return True
        return False

    def note_sent(self, token: str, *, surely: bool) -> None:
        """Note whether an echo that is not heard is lost: the gateway says that it was sent."""
        self._note_of_echo(token, sent=surely)

    def note_echo(self, token: str, *, heard: bool) -> None:
        """Note what became of an echo."""
        self._note_of_echo(token, heard=heard)

    def _note_of_echo(self, token: str, **values: bool) -> None:
        with self._database.write() as connection:
            mine = (echoes.c.gateway == self._gateway, echoes.c.token == token)
            connection.execute(sa.update(echoes).where(*mine).values(values))

    def earlier_echoes(self, key: str) -> list[Echo]:
        """Return the echoes since the present probe of a channel began, oldest first.

        There are some where the hook that began it has died. And those to this channel, of any
        probe, of which it was never noted whether they were heard.
        """
        with self._database.read() as connection:
            at = now(connection)
            began_at = connection.scalar(
                sa.select(probes.c.began_at).where(
                    probes.c.gateway == self._gateway, probes.c.key == key
                )
            )
            since = at if began_at is None else min(began_at, at)
            never_noted = (
                echoes.c.heard.is_(None)
                & (echoes.c.receiver == key)
                & (echoes.c.sent_at > at - _OPEN_SECONDS)
            )
            return self._echoes(connection, at, (echoes.c.sent_at >= since) | never_noted)

    def lost_echoes(self, key: str, within: float) -> list[Echo]:
        """Return the echoes of a channel that were sent within so many seconds, and lost."""
        with self._database.read() as connection:
            at = now(connection)
            return self._echoes(
                connection,
                at,
                echoes.c.sent_at > at - within,
                echoes.c.sent.is_(True),
                echoes.c.heard.is_(False),
                (echoes.c.sender == key) | (echoes.c.receiver == key),
            )

    def _echoes(
        self, connection: sa.Connection, at: float, *which: sa.ColumnElement[bool]
    ) -> list[Echo]:
        mine = echoes.c.gateway == self._gateway
        rows = connection.execute(sa.select(echoes).where(mine, *which).order_by(echoes.c.id))
        return [
            Echo(
                row.sender,
                row.receiver,
                row.token,
                max(0.0, at - row.sent_at),
                bool(row.sent),
                row.heard,
            )
            for row in rows
        ]

    def end(
        self,
        key: str,
        channel: str,
        kind: ProbeKind,
        outcome: ProbeOutcome,
        halted: Iterable[Channel] = (),
    ) -> None:
        """Note how a probe ended; no echoes of the ``halted`` until they are repaired or heard."""
        with self._database.write() as connection:
            # Another job may come to have its id.
            values: dict[str, object] = {"kind": kind, "outcome": outcome, "job": None}
            values["ended_at"] = now(connection)
            if outcome is ProbeOutcome.PASSED and kind is ProbeKind.ECHO:
                values["halted"] = False
            self._note(connection, key, channel, **values)
            for one in halted:
                self._note(connection, one.key, one.id, halted=True)

    def give_up(self, key: str, channel: str) -> None:
        """Note that a probe that had begun came to nothing."""
        with self._database.write() as connection:
            self._note(connection, key, channel, job=None)

    def resume(self, keys: Collection[str]) -> None:
        """Allow echoes again to channels that were heard."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(probes)
                .where(probes.c.gateway == self._gateway, probes.c.key.in_(list(keys)))
                .values(halted=False)
            )

    def halted(self) -> set[str]:
        """Return the keys of the channels that must not take part in echoes."""
        with self._database.read() as connection:
            rows = sa.select(probes.c.key).where(
                probes.c.gateway == self._gateway, probes.c.halted.is_(True)
            )
            return set(connection.scalars(rows))

    def repaired(self, seconds: float) -> set[str]:
        """Return the keys of the channels whose repair ended so lately, or is under way."""
        with self._database.read() as connection:
            lately = repairs.c.finished_at > now(connection) - seconds
            under_way = repairs.c.finished_at.is_(None) & repairs.c.holder.is_not(None)
            rows = sa.select(repairs.c.key).where(
                repairs.c.gateway == self._gateway, ~is_probe(), lately | under_way
            )
            return set(connection.scalars(rows))

    def waiting(self) -> int:
        """Return how many probes are in the queue."""
        with self._database.read() as connection:
            count = sa.select(sa.func.count()).where(unfinished(self._gateway), is_probe())
            return connection.scalar(count) or 0

    def sent_today(self) -> dict[str, int]:
        """Return how many echoes each channel has sent in the last 24 hours."""
        with self._database.read() as connection:
            rows = connection.execute(
                sa.select(echoes.c.sender, sa.func.count())
                .where(echoes.c.gateway == self._gateway, echoes.c.sent_at > now(connection) - _DAY)
                .group_by(echoes.c.sender)
            )
            return {row[0]: row[1] for row in rows}

    def hears_itself(self, key: str) -> bool:
        """Whether an echo that the channel has written to itself was ever heard."""
        with self._database.read() as connection:
            mine = (echoes.c.gateway == self._gateway, echoes.c.sender == key)
            found = sa.select(echoes.c.id).where(*mine, _HEARD_ITSELF).limit(1)
            return connection.scalar(found) is not None

    def all(self) -> dict[str, Probed]:
        """Return how the last probe of each channel ended, by channel key."""
        with self._database.read() as connection:
            return all_probed(connection, self._gateway)

    def forget_old(self) -> None:
        """Delete what nothing needs any more; who hears itself is remembered."""
        with self._database.write() as connection:
            old = echoes.c.sent_at < now(connection) - _KEEP_SECONDS
            last = sa.select(sa.func.max(echoes.c.id)).where(_HEARD_ITSELF)
            kept = connection.scalars(last.group_by(echoes.c.gateway, echoes.c.sender)).all()
            those = sa.select(echoes.c.id).where(old, echoes.c.id.not_in(kept))
            ids = connection.scalars(those.limit(_FORGET_MOST)).all()
            if ids:
                connection.execute(sa.delete(echoes).where(echoes.c.id.in_(ids)))

    def _row(self, connection: sa.Connection, key: str) -> Any:
        mine = (probes.c.gateway == self._gateway, probes.c.key == key)
        return connection.execute(sa.select(probes).where(*mine).with_for_update()).one_or_none()

    def _note(self, connection: sa.Connection, key: str, channel: str, **values: object) -> None:
        mine = (probes.c.gateway == self._gateway, probes.c.key == key)
        if connection.scalar(sa.select(probes.c.key).where(*mine)) is None:
            row = {"gateway": self._gateway, "key": key, "channel": channel}
            connection.execute(sa.insert(probes).values(**row, **values))
        else:
            connection.execute(sa.update(probes).where(*mine).values(channel=channel, **values))


def all_probed(connection: sa.Connection, gateway: str) -> dict[str, Probed]:
    """Return how the last probe of each channel of a gateway ended, by channel key."""
    ended = sa.select(probes).where(probes.c.gateway == gateway, probes.c.ended_at.is_not(None))
    return {
        row.key: Probed(row.channel, ProbeKind(row.kind), ProbeOutcome(row.outcome), row.ended_at)
        for row in connection.execute(ended)
    }
