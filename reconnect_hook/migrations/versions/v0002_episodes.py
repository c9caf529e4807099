"""Growing pauses, the circuit breaker, restarts that survive a crash, indexes for long queues."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from reconnect_hook.migrations.steps import add_column, add_index, has_column, has_table

revision = "0002"
down_revision = "0001"

_KEY = sa.String(255)
_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    """Do what has not been done: MariaDB keeps what a run did that was cut short."""
    add_column("repairs", sa.Column("due_at", sa.Double))
    add_column("repairs", sa.Column("repair_at", sa.Double))
    if has_column("repairs", "not_before"):
        op.execute("UPDATE repairs SET due_at = not_before WHERE active_key IS NOT NULL")
        # Batch: SQLite makes a new table, as most versions of it can drop no column.
        with op.batch_alter_table("repairs") as batch:
            batch.drop_column("not_before")
    add_index("ix_repairs_due", "repairs", ["gateway", "due_at"])
    add_index("ix_repairs_key", "repairs", ["gateway", "key"])
    add_column("channels", sa.Column("reason", sa.String(20)))
    add_column("channels", sa.Column("status", sa.String(20)))
    add_column(
        "channels",
        sa.Column("restarting", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    if not has_table("gateways"):
        op.create_table(
            "gateways",
            sa.Column("gateway", _KEY, primary_key=True),
            sa.Column("failures", sa.Integer, nullable=False),
            sa.Column("failed_at", sa.Double, nullable=False),
            sa.Column("paused_until", sa.Double),
            **_MYSQL,
        )
