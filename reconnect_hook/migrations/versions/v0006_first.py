"""The tables of the first release: it has the number that unreleased states of today carry."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from reconnect_hook.migrations import add_index, add_table

revision = "0006"
down_revision = None

_KEY = sa.String(255)
_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def upgrade() -> None:
    """Make what is not there: MariaDB keeps what a run did that was cut short."""
    add_table(
        "repairs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("gateway", _KEY, nullable=False),
        sa.Column("key", _KEY, nullable=False),
        sa.Column("channel", _KEY, nullable=False),
        sa.Column("reason", sa.String(20), nullable=False),
        sa.Column("look_only", sa.Boolean, nullable=False),
        sa.Column("active_key", _KEY),
        sa.Column("accepted_at", sa.Double, nullable=False),
        sa.Column("due_at", sa.Double),
        sa.Column("repair_at", sa.Double),
        sa.Column("holder", sa.String(40)),
        sa.Column("lease_until", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.Column("attempt", sa.Integer),
        sa.Column("action", sa.String(20)),
        sa.Column("outcome", sa.String(20)),
        sa.Column("detail", sa.String(500)),
        sa.UniqueConstraint("gateway", "active_key"),
        **_MYSQL,
    )
    add_table(
        "channels",
        sa.Column("gateway", _KEY, primary_key=True),
        sa.Column("key", _KEY, primary_key=True),
        sa.Column("channel", _KEY, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("consecutive_failures", sa.Integer, nullable=False),
        sa.Column("qr_required", sa.Boolean, nullable=False),
        sa.Column("called_at", sa.Double),
        sa.Column("unheard_since", sa.Double),
        sa.Column("seen_at", sa.Double),
        sa.Column("reason", sa.String(20)),
        sa.Column("status", sa.String(20)),
        sa.Column("restarting", sa.Boolean, nullable=False, server_default=sa.false()),
        **_MYSQL,
    )
    add_table(
        "gateways",
        sa.Column("gateway", _KEY, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("failed_at", sa.Double, nullable=False),
        sa.Column("paused_until", sa.Double),
        **_MYSQL,
    )
    add_table(
        "pauses",
        sa.Column("gateway", _KEY, primary_key=True),
        sa.Column("key", _KEY, primary_key=True),
        sa.Column("channel", _KEY, nullable=False),
        sa.Column("until", sa.Double),
        **_MYSQL,
    )
    add_table(
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
    add_table(
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
    add_index("ix_repairs_finished_at", "repairs", ["finished_at"])
    add_index("ix_repairs_due", "repairs", ["gateway", "due_at"])
    add_index("ix_repairs_key", "repairs", ["gateway", "key"])
    add_index("ix_echoes_sent", "echoes", ["gateway", "sent_at"])
