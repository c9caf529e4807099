"""Deliveries of missed messages, stored webhook settings, and the channels listed by check."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.mysql import LONGTEXT

from reconnect_hook.migrations import add_columns, add_index, add_table

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the columns and the table."""
    add_columns(
        "message_audit",
        sa.Column("replay_at", sa.Double),
        sa.Column("replay_why", sa.String(500), nullable=False, server_default=""),
    )
    add_columns(
        "missed_message",
        sa.Column("replay", sa.String(20)),
        sa.Column("replayed_at", sa.Double),
        sa.Column("replay_detail", sa.String(250), nullable=False, server_default=""),
    )
    add_index("ix_message_audit_replay", "message_audit", ["gateway", "replay_at"])
    add_columns("channel", sa.Column("webhook", sa.Text))
    add_table(
        "listed_channels",
        sa.Column("gateway", sa.String(255), primary_key=True),
        sa.Column(
            "channels", sa.Text().with_variant(LONGTEXT(), "mysql", "mariadb"), nullable=False
        ),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
