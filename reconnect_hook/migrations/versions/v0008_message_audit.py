"""Audits of messages: what is due, what the last one has found, and what was missed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from reconnect_hook.migrations import add_index, add_table

revision = "0008"
down_revision = "0007"

_KEY = sa.String(255)
_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    """Make the two tables."""
    add_table(
        "message_audit",
        sa.Column("gateway", _KEY, primary_key=True),
        sa.Column("key", _KEY, primary_key=True),
        sa.Column("channel", _KEY, nullable=False),
        sa.Column("since", sa.Double),
        sa.Column("due_at", sa.Double),
        sa.Column("last_due_at", sa.Double),
        sa.Column("result", sa.String(20)),
        sa.Column("detail", sa.String(500), nullable=False, server_default=""),
        sa.Column("received", sa.Integer, nullable=False, server_default="0"),
        sa.Column("missed", sa.Integer, nullable=False, server_default="0"),
        sa.Column("audited_at", sa.Double),
        sa.Column("known_at", sa.Double),
        **_MYSQL,
    )
    add_table(
        "missed_message",
        sa.Column("gateway", _KEY, primary_key=True),
        sa.Column("key", _KEY, primary_key=True),
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("chat", sa.String(4), nullable=False),
        sa.Column("found_at", sa.Double, nullable=False),
        sa.Column("arrived_at", sa.Double),
        **_MYSQL,
    )
    add_index("ix_message_audit_due", "message_audit", ["gateway", "due_at"])
    add_index("ix_missed_message_found_at", "missed_message", ["found_at"])
