"""Reads of the state for the metrics, the operators' page and ``check``."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from reconnect_hook.delivery import WebhookMemory
from reconnect_hook.event_log import KEPT_ATTEMPTS, LoggedAttempt
from reconnect_hook.models import (
    Backoff,
    ChannelRow,
    GatewayRow,
    Intent,
    Outcome,
    Phase,
    ProbeOutcome,
    RepairCause,
)
from reconnect_hook.probe_limits import Probed
from reconnect_hook.repository import (
    ensure_row,
    read_all_rows,
    read_gateway,
    read_state,
    repairs_of,
    update_rows,
)
from reconnect_hook.schema import attempt_log, channel, listed_channels, repair_log
from zapwatch.config.readers import ProbeKind
from zapwatch.db import Database, now, transaction, upsert

_ATTEMPTS = 200  # shown per channel
_GONE_SECONDS = 300.0  # as in the rule WhatsAppChannelGone


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued repair; ``due_at`` is None while it runs. Times are Unix seconds."""

    reason: RepairCause
    accepted_at: float
    due_at: float | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A finished repair. Times are Unix seconds."""

    id: int
    key: str
    channel: str
    reason: RepairCause
    number: int
    """Number within its episode, from 1."""
    action: str
    outcome: Outcome
    detail: str
    accepted_at: float
    finished_at: float


@dataclass(frozen=True, slots=True)
class Paused:
    """A pause of a channel's repairs; ``until`` is Unix seconds, None without an end."""

    channel: str
    until: float | None


@dataclass(frozen=True, slots=True)
class Present:
    """The current state, each part by channel key."""

    at: float
    """Unix seconds by the database's clock."""
    remembered: dict[str, ChannelRow]
    """The rows of listed channels."""
    waiting: dict[str, Waiting]
    paused: dict[str, Paused]
    gateway_rests_until: float | None
    probed: dict[str, Probed] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    """Keys of the channels whose probe is due or in progress."""


class RepairHistory:
    """Reads one gateway's state; each method raises StateError."""

    def __init__(self, database: Database, gateway: str, backoff: Backoff) -> None:
        self._database = database
        self._gateway = gateway
        self.backoff = backoff

    def present(self) -> Present:
        """Return the current state."""
        with self._database.read() as connection:
            gateway, found, at = read_all_rows(connection, self._gateway)
        rows = [row for row, _ in found]
        repairs = [row for row in rows if row.is_open and row.intent >= Intent.REPAIR]
        return Present(
            at,
            {row.key: row for row in rows if row.listed},
            {
                row.key: Waiting(
                    row.cause,
                    row.since,
                    None
                    if row.in_work
                    else max(self.backoff.call_allowed_at(row, gateway), row.next_at or at),
                )
                for row in repairs
            },
            {row.key: Paused(row.channel, row.paused_until) for row in rows if row.is_paused(at)},
            gateway.rests_until if gateway.rests(at) else None,
            {
                row.key: Probed(
                    row.channel,
                    ProbeKind(stored.probe_kind),
                    ProbeOutcome(stored.probe_outcome),
                    stored.probe_ended_at,
                    _webhook_fault(stored.probe_outcome, stored.webhook),
                )
                for row, stored in found
                if stored.probe_ended_at is not None
            },
            frozenset(
                row.key
                for row in rows
                if row.intent is Intent.PROBE
                and (row.phase is Phase.PROBING or (row.next_at or at) <= at)
                and row.is_open
            ),
        )

    def unsettled(self) -> bool:
        """Whether a recheck or repair is in progress, or is due and the circuit not open."""
        row = channel.c
        with self._database.read() as connection:
            at = now(connection)
            rests = read_gateway(connection, self._gateway).rests(at)
            in_work = row.phase != Phase.IDLE.value
            query = sa.select(row.key).where(
                row.gateway == self._gateway,
                row.next_at.is_not(None),
                row.intent >= int(Intent.RECHECK),
                in_work if rests else in_work | (row.next_at <= at),
            )
            return connection.scalar(query.limit(1)) is not None

    def state_of(self, keys: Collection[str]) -> tuple[GatewayRow, dict[str, ChannelRow], float]:
        """Return the gateway's row, the rows of these channels, and the time (Unix seconds)."""
        with self._database.read() as connection:
            return read_state(connection, self._gateway, keys)

    def ended_after(self, repair_id: int) -> list[Attempt]:
        """Return the repairs recorded after the one with this id."""
        mine = (repairs_of(self._gateway), repair_log.c.id > repair_id)
        return self._ended(sa.select(repair_log).where(*mine).order_by(repair_log.c.id))

    def ended_since(self, moment: float) -> list[Attempt]:
        """Return the repairs finished at ``moment`` (Unix seconds) or later, oldest first."""
        condition = (repair_log.c.finished_at >= moment, repairs_of(self._gateway))
        query = sa.select(repair_log).where(*condition).order_by(repair_log.c.finished_at)
        return self._ended(query)

    def last_of_each(self) -> list[Attempt]:
        """Return the newest repair of each channel."""
        newest = (
            sa.select(sa.func.max(repair_log.c.id))
            .where(repair_log.c.gateway == self._gateway)
            .group_by(repair_log.c.key)
        )
        return self._ended(sa.select(repair_log).where(repair_log.c.id.in_(newest)))

    def of_channel(self, key: str) -> list[Attempt]:
        """Return a channel's repairs, the newest first, 200 at most."""
        mine = (repair_log.c.gateway == self._gateway, repair_log.c.key == key)
        query = sa.select(repair_log).where(*mine).order_by(repair_log.c.id.desc())
        return self._ended(query.limit(_ATTEMPTS))

    def logged(self, key: str) -> list[LoggedAttempt]:
        """Return a channel's last probes and repairs with their steps, the newest first."""
        log = attempt_log.c
        query = (
            sa.select(attempt_log)
            .where(log.gateway == self._gateway, log.key == key)
            .order_by(log.id.desc())
            .limit(KEPT_ATTEMPTS)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).mappings()
            return [LoggedAttempt.from_row(dict(row)) for row in rows]

    def newest_id(self) -> int:
        """Return the id of the newest repair of all gateways, 0 without any."""
        with self._database.read() as connection:
            return connection.scalar(sa.select(sa.func.max(repair_log.c.id))) or 0

    def _ended(self, query: sa.Select[Any]) -> list[Attempt]:
        with self._database.read() as connection:
            return [_attempt(row) for row in connection.execute(query)]

    @transaction
    def note_unheard(
        self, connection: sa.Connection, unheard: Mapping[str, str]
    ) -> dict[str, float]:
        """Record the channels (key: id) without a known message; return the seconds since then.

        All other channels of the gateway are recorded as heard.
        """
        at = now(connection)
        mine = channel.c.gateway == self._gateway
        noted = sa.select(channel.c.key, channel.c.unheard_since).where(mine)
        since = {row.key: row.unheard_since for row in connection.execute(noted)}
        for key in sorted(unheard.keys() - since.keys()):
            ensure_row(connection, self._gateway, key, unheard[key], listed=True)
        # A time in the future, from before the clock was set back, is replaced.
        new = [key for key in unheard if since.get(key) is None or since[key] > at]
        heard = [key for key, moment in since.items() if moment and key not in unheard]
        update_rows(connection, self._gateway, heard, unheard_since=None)
        update_rows(connection, self._gateway, new, unheard_since=at)
        since |= dict.fromkeys(new, at)
        return {key: at - since[key] for key in unheard}

    @transaction
    def note_listed(
        self,
        connection: sa.Connection,
        listed: Mapping[str, str],
        is_ignored: Callable[[str], bool],
    ) -> list[str]:
        """Record the listed channels (key: id), and return those that have left the list.

        Each is returned once, five minutes or more after the first call that missed it: a
        restarting gateway lists its sessions one by one. Ignored keys are dropped.
        """
        at = now(connection)
        mine = listed_channels.c.gateway == self._gateway
        noted = connection.scalar(sa.select(listed_channels.c.channels).where(mine))
        before: dict[str, tuple[str, float | None]] = json.loads(noted or "{}")
        kept: dict[str, tuple[str, float | None]] = {k: (c, None) for k, c in listed.items()}
        gone = []
        for key in before.keys() - kept.keys():
            if is_ignored(key):
                continue
            name, since = before[key]
            # A time in the future, from before the clock was set back, is replaced.
            since = at if since is None or since > at else since
            if at - since >= _GONE_SECONDS:
                gone.append(name)
            else:
                kept[key] = name, since
        text = json.dumps(kept, sort_keys=True)
        if text != noted:
            row = {"gateway": self._gateway, "channels": text}
            store = upsert(
                connection.dialect.name, listed_channels, lambda new: [("channels", new.channels)]
            )
            connection.execute(store, [row])
        return sorted(gone)


def episodes(attempts: Sequence[Attempt]) -> list[list[Attempt]]:
    """Group attempts, newest first, into episodes, also newest first."""
    found: list[list[Attempt]] = []
    for attempt in attempts:
        # Attempt 1 begins an episode, so the next one in this order ends the episode before.
        if found and found[-1][-1].number > attempt.number:
            found[-1].append(attempt)
        else:
            found.append([attempt])
    return found


def _webhook_fault(outcome: str, kept: str | None) -> str:
    if outcome != ProbeOutcome.DELIVERY_BROKEN:
        return ""
    return WebhookMemory.load(kept).fault or ""


def _attempt(row: Any) -> Attempt:
    return Attempt(
        row.id,
        row.key,
        row.channel,
        RepairCause(row.cause),
        row.attempt,
        row.action,
        Outcome(row.outcome),
        row.detail,
        row.accepted_at,
        row.finished_at,
    )
