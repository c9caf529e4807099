"""The tables of the first version, which made them without noting that it had."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from reconnect_hook.migrations.steps import has_table

revision = "0001"
down_revision = None

_KEY = sa.String(255)
_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    """Make them where they are not there."""
    if not has_table("repairs"):
        op.create_table(
            "repairs",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("gateway", _KEY, nullable=False),
            sa.Column("key", _KEY, nullable=False),
            sa.Column("channel", _KEY, nullable=False),
            sa.Column("reason", sa.String(20), nullable=False),
            sa.Column("look_only", sa.Boolean, nullable=False),
            sa.Column("active_key", _KEY),
            sa.Column("accepted_at", sa.Double, nullable=False),
            sa.Column("not_before", sa.Double, nullable=False),
            sa.Column("holder", sa.String(40)),
            sa.Column("lease_until", sa.Double),
            sa.Column("finished_at", sa.Double, index=True),
            sa.Column("attempt", sa.Integer),
            sa.Column("action", sa.String(20)),
            sa.Column("outcome", sa.String(20)),
            sa.Column("detail", sa.String(500)),
            sa.UniqueConstraint("gateway", "active_key"),
            **_MYSQL,
        )
    if not has_table("channels"):
        op.create_table(
            "channels",
            sa.Column("gateway", _KEY, primary_key=True),
            sa.Column("key", _KEY, primary_key=True),
            sa.Column("channel", _KEY, nullable=False),
            sa.Column("attempts", sa.Integer, nullable=False),
            sa.Column("consecutive_failures", sa.Integer, nullable=False),
            sa.Column("qr_required", sa.Boolean, nullable=False),
            sa.Column("called_at", sa.Double),
            sa.Column("unheard_since", sa.Double),
            **_MYSQL,
        )
