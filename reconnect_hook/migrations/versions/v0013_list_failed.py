"""Whether a gateway's last list failed, for all hooks."""

from __future__ import annotations

import sqlalchemy as sa

from reconnect_hook.migrations import add_column

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the column."""
    failed = sa.Column("list_failed", sa.Boolean, nullable=False, server_default=sa.false())
    add_column("gateway", failed)
