"""The tables of the state database, as this version of the program has them.

Another version of them is another step in ``migrations/versions``; a test compares the two.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from zapwatch.channels import MAX_ID_LENGTH

metadata = sa.MetaData()
# Identities differ by letters that a friendlier collation would take for the same.
MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}
_KEY = sa.String(MAX_ID_LENGTH)
_SECONDS = sa.Double  # Unix seconds by the database's clock

repairs = sa.Table(
    "repairs",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("gateway", _KEY, nullable=False),
    sa.Column("key", _KEY, nullable=False),
    sa.Column("channel", _KEY, nullable=False),
    sa.Column("reason", sa.String(20), nullable=False),
    # A look: ends the episode if the channel is connected, calls nothing if it is not.
    sa.Column("look_only", sa.Boolean, nullable=False),
    # The key until the repair is done, then NULL: two rows of one channel cannot both have it.
    sa.Column("active_key", _KEY),
    sa.Column("accepted_at", _SECONDS, nullable=False),
    # From when on it may be claimed; NULL once it is done, which keeps the index short.
    sa.Column("due_at", _SECONDS),
    # Of a look that came before a repair was due: when that one is.
    sa.Column("repair_at", _SECONDS),
    sa.Column("holder", sa.String(40)),
    sa.Column("lease_until", _SECONDS),
    sa.Column("finished_at", _SECONDS, index=True),
    sa.Column("attempt", sa.Integer),
    sa.Column("action", sa.String(20)),
    sa.Column("outcome", sa.String(20)),
    sa.Column("detail", sa.String(500)),
    sa.UniqueConstraint("gateway", "active_key"),
    sa.Index("ix_repairs_due", "gateway", "due_at"),
    sa.Index("ix_repairs_key", "gateway", "key"),
    **MYSQL,
)
"""One row a repair, waiting, under way or done. It is claimed by a ``holder`` for a while."""

channels = sa.Table(
    "channels",
    metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    sa.Column("key", _KEY, primary_key=True),
    sa.Column("channel", _KEY, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("consecutive_failures", sa.Integer, nullable=False, default=0),
    sa.Column("qr_required", sa.Boolean, nullable=False, default=False),
    # When the last repair ended that called the gateway, or failed.
    sa.Column("called_at", _SECONDS),
    sa.Column("unheard_since", _SECONDS),
    # When a look last found it well, so that nothing was called.
    sa.Column("seen_at", _SECONDS),
    # What the last repair was for, and what the gateway said of the channel in the end.
    sa.Column("reason", sa.String(20)),
    sa.Column("status", sa.String(20)),
    # Its session is being thrown away and made anew: whoever finds none must make one.
    sa.Column("restarting", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    **MYSQL,
)
"""What is remembered of a channel that the gateway lists: its episode, and when it was called."""

gateways = sa.Table(
    "gateways",
    metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("failed_at", _SECONDS, nullable=False),
    sa.Column("paused_until", _SECONDS),
    **MYSQL,
)
"""The circuit breaker: how many calls in a row a gateway has failed, and until when it rests."""

pauses = sa.Table(
    "pauses",
    metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    sa.Column("key", _KEY, primary_key=True),
    sa.Column("channel", _KEY, nullable=False),
    # NULL: until a person ends it.
    sa.Column("until", _SECONDS),
    **MYSQL,
)
"""The channels of which a person has paused the repairs; what is over counts for nothing."""

probes = sa.Table(
    "probes",
    metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    sa.Column("key", _KEY, primary_key=True),
    sa.Column("channel", _KEY, nullable=False),
    # When the last probe of it began, and for which row of the queue.
    sa.Column("began_at", _SECONDS),
    sa.Column("job", sa.Integer),
    # How the last one that ended was made, and how it ended.
    sa.Column("kind", sa.String(10)),
    sa.Column("outcome", sa.String(20)),
    sa.Column("ended_at", _SECONDS),
    # An echo was lost: no more of them until a repair, or until it is heard.
    sa.Column("halted", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    **MYSQL,
)
"""What is remembered of asking a channel whether it is alive."""

echoes = sa.Table(
    "echoes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("gateway", _KEY, nullable=False),
    # Channel keys; no numbers.
    sa.Column("sender", _KEY, nullable=False),
    sa.Column("receiver", _KEY, nullable=False),
    sa.Column("token", sa.String(64), nullable=False),
    # When it was about to be sent.
    sa.Column("sent_at", _SECONDS, nullable=False),
    # The gateway has said so, and the log was there to tell. NULL: nobody lived to note it.
    sa.Column("sent", sa.Boolean),
    # NULL: not known yet.
    sa.Column("heard", sa.Boolean),
    sa.Index("ix_echoes_sent", "gateway", "sent_at"),
    **MYSQL,
)
"""The echoes of the last two days; each is noted before it is sent."""

PROBES = ("suspect", "asked")
"""The reasons of rows in ``repairs`` that only ask: see Reason.is_probe."""


def is_probe() -> sa.ColumnElement[bool]:
    """Return the condition for the rows of ``repairs`` that only ask a channel."""
    return repairs.c.look_only.is_(False) & repairs.c.reason.in_(PROBES)


def of_channel(gateway: str, key: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the condition for the row of ``channels`` about one channel."""
    return (channels.c.gateway == gateway, channels.c.key == key)


def unfinished(gateway: str) -> sa.ColumnElement[bool]:
    """Return the condition for the rows of ``repairs`` that are queued or under way."""
    return sa.and_(repairs.c.gateway == gateway, repairs.c.active_key.is_not(None))


def paused(gateway: str, at: float) -> sa.ColumnElement[bool]:
    """Return the condition for the rows of ``pauses`` that hold at the moment ``at``."""
    return sa.and_(pauses.c.gateway == gateway, pauses.c.until.is_(None) | (pauses.c.until > at))


def may_call(gateway: str, at: float) -> sa.ColumnElement[bool]:
    """Return the condition for the rows of ``repairs`` that no pause holds back.

    Looks are not held back: they call nothing for the channel.
    """
    held_back = sa.select(pauses.c.key).where(paused(gateway, at), pauses.c.key == repairs.c.key)
    return repairs.c.look_only | ~held_back.exists()


def remember(
    connection: sa.Connection, gateway: str, key: str, channel: str, **values: object
) -> None:
    """Set values of a channel's row in ``channels``, which is made if it is not there."""
    where = of_channel(gateway, key)
    if connection.scalar(sa.select(channels.c.key).where(*where)) is None:
        row = {"gateway": gateway, "key": key, "channel": channel}
        connection.execute(sa.insert(channels).values(row))
    connection.execute(sa.update(channels).where(*where).values(channel=channel, **values))
