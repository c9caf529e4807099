"""Probes of channels, and the echoes that were sent for them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from reconnect_hook.migrations.steps import add_index, has_table

revision = "0005"
down_revision = "0004"

_KEY = sa.String(255)
_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    """Make the tables where they are not there."""
    if not has_table("probes"):
        op.create_table(
            "probes",
            sa.Column("gateway", _KEY, primary_key=True),
            sa.Column("key", _KEY, primary_key=True),
            sa.Column("channel", _KEY, nullable=False),
            sa.Column("began_at", sa.Double),
            sa.Column("job", sa.Integer),
            sa.Column("kind", sa.String(10)),
            sa.Column("outcome", sa.String(20)),
            sa.Column("ended_at", sa.Double),
            sa.Column("halted", sa.Boolean, nullable=False, server_default=sa.false()),
            **_MYSQL,
        )
    if not has_table("echoes"):
        op.create_table(
            "echoes",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("gateway", _KEY, nullable=False),
            sa.Column("sender", _KEY, nullable=False),
            sa.Column("receiver", _KEY, nullable=False),
            sa.Column("token", sa.String(64), nullable=False),
            sa.Column("sent_at", sa.Double, nullable=False),
            sa.Column("heard", sa.Boolean),
            **_MYSQL,
        )
    add_index("ix_echoes_sent", "echoes", ["gateway", "sent_at"])
