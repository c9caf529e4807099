"""The tables of the first release."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.schema import SchemaItem

revision = "0012"
down_revision = None

_KEY = sa.String(255)
_WORD = sa.String(20)
_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def _add_table(table: str, *columns: SchemaItem, **options: Any) -> None:
    """Add a table if it is missing."""
    if not sa.inspect(op.get_bind()).has_table(table):
        op.create_table(table, *columns, **options)


def _add_index(name: str, table: str, columns: Sequence[str]) -> None:
    """Add an index if its name is missing."""
    if all(index["name"] != name for index in sa.inspect(op.get_bind()).get_indexes(table)):
        op.create_index(name, table, list(columns))


def _of_channel(*, key: bool = False) -> list[sa.Column[Any]]:
    """Return the columns that name a channel; ``key``: they are the table's primary key."""
    return [
        sa.Column("gateway", _KEY, primary_key=key, nullable=False),
        sa.Column("key", _KEY, primary_key=key, nullable=False),
    ]


def _words(name: str, most: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(most), nullable=False, server_default="")


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, server_default="0")


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false())


def _seconds(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Double) for name in names]


def upgrade() -> None:
    """Add what is missing."""
    _add_channels()
    _add_logs()
    _add_audits()


def _add_channels() -> None:
    _add_table(
        "channel",
        *_of_channel(key=True),
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
        sa.Column("webhook", sa.Text),
        _flag("suspended"),
        **_MYSQL,
    )
    _add_table(
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
    _add_table(
        "listed_channels",
        sa.Column("gateway", _KEY, primary_key=True),
        sa.Column("channels", sa.Text().with_variant(LONGTEXT(), "mysql"), nullable=False),
        **_MYSQL,
    )
    _add_table(
        "scan_links",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
        *_of_channel(),
        sa.Column("channel", _KEY, nullable=False),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        _count("opens"),
        *_seconds("opened_at"),
        **_MYSQL,
    )
    _add_index("ix_channel_next", "channel", ["gateway", "next_at"])


def _add_logs() -> None:
    _add_table(
        "repair_log",
        sa.Column("id", sa.Integer, primary_key=True),
        *_of_channel(),
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
    _add_table(
        "attempt_log",
        sa.Column("id", sa.Integer, primary_key=True),
        *_of_channel(),
        sa.Column("kind", _WORD, nullable=False),
        sa.Column("outcome", _WORD, nullable=False),
        sa.Column("ended_at", sa.Double, nullable=False),
        sa.Column("steps", sa.Text, nullable=False),
        **_MYSQL,
    )
    _add_table(
        "echoes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("gateway", _KEY, nullable=False),
        sa.Column("sender", _KEY, nullable=False),
        sa.Column("receiver", _KEY, nullable=False),
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("sent_at", sa.Double, nullable=False),
        sa.Column("sent", sa.Boolean),
        sa.Column("heard", sa.Boolean),
        **_MYSQL,
    )
    _add_index("ix_repair_log_finished_at", "repair_log", ["finished_at"])
    _add_index("ix_repair_log_key", "repair_log", ["gateway", "key", "id"])
    _add_index("ix_attempt_log_ended_at", "attempt_log", ["ended_at"])
    _add_index("ix_attempt_log_key", "attempt_log", ["gateway", "key", "id"])
    _add_index("ix_echoes_sent", "echoes", ["gateway", "sent_at"])


def _add_audits() -> None:
    _add_table(
        "message_audit",
        *_of_channel(key=True),
        sa.Column("channel", _KEY, nullable=False),
        *_seconds("since", "due_at", "last_due_at"),
        sa.Column("result", _WORD),
        _words("detail", 500),
        _count("received"),
        _count("missed"),
        *_seconds("audited_at", "known_at", "replay_at"),
        _words("replay_why", 500),
        **_MYSQL,
    )
    _add_table(
        "missed_message",
        *_of_channel(key=True),
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("kind", _WORD, nullable=False),
        sa.Column("chat", sa.String(4), nullable=False),
        sa.Column("found_at", sa.Double, nullable=False),
        *_seconds("arrived_at"),
        sa.Column("replay", _WORD),
        *_seconds("replayed_at"),
        _words("replay_detail", 250),
        **_MYSQL,
    )
    _add_index("ix_message_audit_due", "message_audit", ["gateway", "due_at"])
    _add_index("ix_message_audit_replay", "message_audit", ["gateway", "replay_at"])
    _add_index("ix_missed_message_found_at", "missed_message", ["found_at"])
