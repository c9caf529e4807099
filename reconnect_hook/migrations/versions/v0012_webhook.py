"""The stored webhook settings of each channel."""

from __future__ import annotations

import sqlalchemy as sa

from reconnect_hook.migrations.steps import add_column

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column."""
    add_column("channel", sa.Column("webhook", sa.Text))
