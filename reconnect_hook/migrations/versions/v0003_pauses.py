"""Channels of which a person has paused the repairs."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from reconnect_hook.migrations.steps import has_table

revision = "0003"
down_revision = "0002"

_KEY = sa.String(255)
_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    """Make the table where it is not there."""
    if not has_table("pauses"):
        op.create_table(
            "pauses",
            sa.Column("gateway", _KEY, primary_key=True),
            sa.Column("key", _KEY, primary_key=True),
            sa.Column("channel", _KEY, nullable=False),
            sa.Column("until", sa.Double),
            **_MYSQL,
        )
