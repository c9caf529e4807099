"""A table of the links by which somebody without a login may scan a channel's code."""

from __future__ import annotations

import sqlalchemy as sa

from reconnect_hook.migrations import add_table

revision = "0009"
down_revision = "0008"

_KEY = sa.String(255)


def upgrade() -> None:
    """Make the table."""
    add_table(
        "scan_links",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("gateway", _KEY, nullable=False),
        sa.Column("key", _KEY, nullable=False),
        sa.Column("channel", _KEY, nullable=False),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("opens", sa.Integer, nullable=False, server_default="0"),
        sa.Column("opened_at", sa.Double),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
    )
