"""Whether the gateway has said that an echo was sent."""

from __future__ import annotations

import sqlalchemy as sa

from reconnect_hook.migrations.steps import add_column

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Do what has not been done."""
    add_column("echoes", sa.Column("sent", sa.Boolean))
