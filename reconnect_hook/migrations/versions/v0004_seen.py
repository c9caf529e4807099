"""When a look last found a channel well: alerts that are older news need no second line."""

from __future__ import annotations

import sqlalchemy as sa

from reconnect_hook.migrations.steps import add_column

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Do what has not been done."""
    add_column("channels", sa.Column("seen_at", sa.Double))
