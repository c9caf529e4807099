"""One row a channel: what was in five tables becomes its row, and the queue's end a log."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from reconnect_hook.migrations import add_index, add_table

revision = "0007"
down_revision = "0006"

_KEY = sa.String(255)
_WORD = sa.String(20)
_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}
_RECHECK, _PROBE, _REPAIR = 2, 1, 3
_OLD = ("channels", "gateways", "pauses", "probes")


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, server_default="0")


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false())


def _seconds(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Double) for name in names]


def upgrade() -> None:
    """Make the tables, fill them from those of before, and drop these."""
    _add_tables()
    connection = op.get_bind()
    tables = sa.inspect(connection).get_table_names()
    # While the old queue is there, what a run that was cut short has copied counts for nothing.
    if "repairs" in tables:
        _convert(connection)
        op.drop_table("repairs")
    for name in _OLD:
        if name in tables:
            op.drop_table(name)


def _add_tables() -> None:
    add_table(
        "channel",
        sa.Column("gateway", _KEY, primary_key=True),
        sa.Column("key", _KEY, primary_key=True),
        sa.Column("channel", _KEY, nullable=False),
        _flag("listed"),
        _count("intent"),
        sa.Column("cause", _WORD),
        sa.Column("asked_by", _WORD),
        *_seconds("since"),
        _count("raised_in"),
        *_seconds("next_at"),
        sa.Column("phase", _WORD, nullable=False, server_default="idle"),
        _count("epoch"),
        *_seconds("deadline"),
        sa.Column("step", _WORD),
        _count("tries"),
        sa.Column("action", _WORD),
        _flag("silent"),
        _count("attempts"),
        _count("failures"),
        _count("stuck"),
        *_seconds("asked_at", "called_at"),
        _count("called_in"),
        *_seconds("seen_at"),
        sa.Column("last_status", _WORD),
        sa.Column("last_cause", _WORD),
        _flag("qr_required"),
        _flag("restarting"),
        *_seconds("starting_since"),
        _flag("paused"),
        *_seconds("paused_until", "unheard_since", "probe_began_at", "query_failed_at"),
        sa.Column("probe_kind", _WORD),
        sa.Column("probe_outcome", _WORD),
        *_seconds("probe_ended_at"),
        _flag("suspended"),
        **_MYSQL,
    )
    add_table(
        "gateway",
        sa.Column("gateway", _KEY, primary_key=True),
        _count("look"),
        _count("epoch"),
        sa.Column("holder", sa.String(40)),
        *_seconds("lease_until"),
        _count("failures"),
        *_seconds("failed_at", "rests_until", "back_at"),
        sa.Column("echo_at", sa.Double, nullable=False, server_default="0"),
        **_MYSQL,
    )
    add_table(
        "repair_log",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("gateway", _KEY, nullable=False),
        sa.Column("key", _KEY, nullable=False),
        sa.Column("channel", _KEY, nullable=False),
        sa.Column("cause", _WORD, nullable=False),
        sa.Column("asked_by", _WORD),
        sa.Column("accepted_at", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("action", _WORD, nullable=False),
        sa.Column("outcome", _WORD, nullable=False),
        sa.Column("detail", sa.String(500), nullable=False),
        **_MYSQL,
    )
    add_index("ix_channel_next", "channel", ["gateway", "next_at"])
    add_index("ix_repair_log_finished_at", "repair_log", ["finished_at"])
    add_index("ix_repair_log_key", "repair_log", ["gateway", "key", "id"])


def _convert(connection: sa.Connection) -> None:
    new = sa.MetaData()
    new.reflect(connection, only=["channel", "gateway", "repair_log", "repairs", *_OLD])
    table = new.tables
    for name in ("channel", "gateway", "repair_log"):
        connection.execute(sa.delete(table[name]))
    _copy_history(connection, table["repairs"], table["repair_log"])
    rows: dict[tuple[str, str], dict[str, Any]] = {}

    def row_of(old: Any) -> dict[str, Any]:
        names = {"gateway": old.gateway, "key": old.key, "channel": old.channel}
        return rows.setdefault((old.gateway, old.key), names)

    for old in connection.execute(sa.select(table["channels"])):
        row_of(old).update(
            listed=True,
            attempts=old.attempts,
            failures=old.consecutive_failures,
            qr_required=old.qr_required,
            called_at=old.called_at,
            unheard_since=old.unheard_since,
            seen_at=old.seen_at,
            last_cause=old.reason,
            last_status=old.status,
            restarting=old.restarting,
        )
    for old in connection.execute(sa.select(table["pauses"])):
        row_of(old).update(paused=True, paused_until=old.until)
    for old in connection.execute(sa.select(table["probes"])):
        row_of(old).update(
            probe_began_at=old.began_at,
            probe_kind=old.kind,
            probe_outcome=old.outcome,
            probe_ended_at=old.ended_at,
            suspended=old.halted,
        )
    for old in connection.execute(
        sa.select(table["repairs"]).where(table["repairs"].c.active_key.is_not(None))
    ):
        row_of(old).update(
            intent=_intent(old),
            cause=old.reason,
            asked_by="alertmanager",
            since=old.accepted_at,
            next_at=old.accepted_at if old.due_at is None else old.due_at,
        )
    for row in rows.values():
        connection.execute(sa.insert(table["channel"]).values(row))
    for old in connection.execute(sa.select(table["gateways"])):
        connection.execute(
            sa.insert(table["gateway"]).values(
                gateway=old.gateway,
                failures=old.failures,
                failed_at=old.failed_at,
                rests_until=old.paused_until,
            )
        )


def _intent(old: Any) -> int:
    if old.look_only and old.repair_at is None:
        return _RECHECK
    return _PROBE if old.reason in {"suspect", "asked"} else _REPAIR


def _copy_history(connection: sa.Connection, repairs: sa.Table, log: sa.Table) -> None:
    old = repairs.c
    columns = {
        "id": old.id,
        "gateway": old.gateway,
        "key": old.key,
        "channel": old.channel,
        "cause": old.reason,
        "accepted_at": old.accepted_at,
        "finished_at": old.finished_at,
        "attempt": sa.func.coalesce(old.attempt, 1),
        "action": sa.func.coalesce(old.action, "none"),
        "outcome": old.outcome,
        "detail": sa.func.coalesce(old.detail, ""),
    }
    ended = sa.select(*columns.values()).where(
        old.finished_at.is_not(None), old.outcome.is_not(None)
    )
    connection.execute(sa.insert(log).from_select(list(columns), ended))
