"""Deliveries of missed messages: due times and results."""

from __future__ import annotations

import sqlalchemy as sa

from reconnect_hook.migrations.steps import add_columns, add_index

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the columns."""
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
