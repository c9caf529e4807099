"""The log of the last probes and repairs, step by step."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from reconnect_hook.migrations import add_index, add_table

revision = "0010"
down_revision = "0009"

_KEY = sa.String(255)
_WORD = sa.String(20)
_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    """Add the table."""
    add_table(
        "attempt_log",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("gateway", _KEY, nullable=False),
        sa.Column("key", _KEY, nullable=False),
        sa.Column("kind", _WORD, nullable=False),
        sa.Column("outcome", _WORD, nullable=False),
        sa.Column("ended_at", sa.Double, nullable=False),
        sa.Column("steps", sa.Text, nullable=False),
        **_MYSQL,
    )
    add_index("ix_attempt_log_ended_at", "attempt_log", ["ended_at"])
    add_index("ix_attempt_log_key", "attempt_log", ["gateway", "key", "id"])
