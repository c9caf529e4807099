"""The tables of the state database in this version, and the way of an older one to them.

Each change needs a revision in ``migrations/versions``; a test compares the two.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.mysql import LONGTEXT

from zapwatch.channels import MAX_ID_LENGTH
from zapwatch.clock import Clock
from zapwatch.db import Database, StateError, lock_sqlite, make_table

if TYPE_CHECKING:
    from alembic.config import Config

metadata = sa.MetaData()
_table = partial(make_table, metadata)
_KEY = sa.String(MAX_ID_LENGTH)
_WORD = sa.String(20)
_SECONDS = sa.Double  # Unix seconds by the database's clock


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, server_default="0")


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false())


channel = _table(
    "channel",
    sa.Column("gateway", _KEY, primary_key=True),
    sa.Column("key", _KEY, primary_key=True),
    # The gateway's spelling once it has listed the channel, else the alert's.
    sa.Column("channel", _KEY, nullable=False),
    _flag("listed"),
    # The intent (models.Intent), its cause, its source, and its start.
    _count("intent"),
    sa.Column("cause", _WORD),
    sa.Column("asked_by", _WORD),
    sa.Column("since", _SECONDS),
    # The number of the gateway's look at the last raise: only a later look may close the row.
    _count("raised_in"),
    # When a look is due; NULL: no intent.
    sa.Column("next_at", _SECONDS),
    # The phase (models.Phase), the lead's epoch, and the phase's deadline.
    sa.Column("phase", _WORD, nullable=False, server_default="idle"),
    _count("epoch"),
    sa.Column("deadline", _SECONDS),
    # The last call of this repair, its tries, the strongest call, whether for silence.
    sa.Column("step", _WORD),
    _count("tries"),
    sa.Column("action", _WORD),
    _flag("silent"),
    # Of the episode: repairs, consecutive failures, consecutive repairs without effect.
    _count("attempts"),
    _count("failures"),
    _count("stuck"),
    sa.Column("asked_at", _SECONDS),
    # When the last call or failed repair ended, and the look's number then.
    sa.Column("called_at", _SECONDS),
    _count("called_in"),
    # When a look last found it well, without a call.
    sa.Column("seen_at", _SECONDS),
    sa.Column("last_status", _WORD),
    sa.Column("last_cause", _WORD),
    _flag("qr_required"),
    # Its session is being recreated: if there is none, the leader must create it.
    _flag("restarting"),
    # The first of the consecutive looks that found it starting.
    sa.Column("starting_since", _SECONDS),
    # An operator has paused its repairs; no end if paused_until is NULL.
    _flag("paused"),
    sa.Column("paused_until", _SECONDS),
    sa.Column("unheard_since", _SECONDS),
    # When its last probe began, and when that probe's first query failed.
    sa.Column("probe_began_at", _SECONDS),
    sa.Column("query_failed_at", _SECONDS),
    sa.Column("probe_kind", _WORD),
    sa.Column("probe_outcome", _WORD),
    sa.Column("probe_ended_at", _SECONDS),
    # JSON: its webhook (delivery.WebhookMemory), without addresses.
    sa.Column("webhook", sa.Text),
    # An echo was lost: no further ones until a repair or a received message.
    _flag("suspended"),
    sa.Index("ix_channel_next", "gateway", "next_at"),
)
"""One row a channel: intent, work in progress and history."""

gateway = _table(
    "gateway",
    sa.Column("gateway", _KEY, primary_key=True),
    # Number of looks; committed before each list call.
    _count("look"),
    # The leader, and the number of this lead, which fences each write.
    _count("epoch"),
    sa.Column("holder", sa.String(40)),
    sa.Column("lease_until", _SECONDS),
    # The circuit breaker.
    _count("failures"),
    sa.Column("failed_at", _SECONDS),
    sa.Column("rests_until", _SECONDS),
    sa.Column("back_at", _SECONDS),
    # Whether the last list failed.
    _flag("list_failed"),
    sa.Column("echo_at", _SECONDS, nullable=False, server_default="0"),
)
"""One row a gateway: looks, lead, circuit breaker and last echo."""

repair_log = _table(
    "repair_log",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("gateway", _KEY, nullable=False),
    sa.Column("key", _KEY, nullable=False),
    sa.Column("channel", _KEY, nullable=False),
    sa.Column("cause", _WORD, nullable=False),
    sa.Column("asked_by", _WORD),
    sa.Column("accepted_at", _SECONDS, nullable=False),
    sa.Column("finished_at", _SECONDS, nullable=False, index=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("action", _WORD, nullable=False),
    sa.Column("outcome", _WORD, nullable=False),
    sa.Column("detail", sa.String(500), nullable=False),
    sa.Index("ix_repair_log_key", "gateway", "key", "id"),
)
"""Finished repairs."""

attempt_log = _table(
    "attempt_log",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("gateway", _KEY, nullable=False),
    sa.Column("key", _KEY, nullable=False),
    sa.Column("kind", _WORD, nullable=False),
    sa.Column("outcome", _WORD, nullable=False),
    sa.Column("ended_at", _SECONDS, nullable=False, index=True),
    # JSON: a list of [Unix seconds, event_log.StepKind, words].
    sa.Column("steps", sa.Text, nullable=False),
    sa.Index("ix_attempt_log_key", "gateway", "key", "id"),
)
"""Each channel's last probes and repairs with any step, step by step."""

echoes = _table(
    "echoes",
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("gateway", _KEY, nullable=False),
    # Channel keys, not phone numbers.
    sa.Column("sender", _KEY, nullable=False),
    sa.Column("receiver", _KEY, nullable=False),
    sa.Column("token", sa.String(64), nullable=False),
    # Just before it was sent.
    sa.Column("sent_at", _SECONDS, nullable=False),
    # The gateway confirmed it and the log was readable. NULL: the hook died before noting it.
    sa.Column("sent", sa.Boolean),
    # NULL: unknown so far.
    sa.Column("heard", sa.Boolean),
    sa.Index("ix_echoes_sent", "gateway", "sent_at"),
)
"""The echoes of the last two days, each recorded before it is sent."""

scan_links = _table(
    "scan_links",
    # Shown to operators; independent of the token.
    # A status link's id begins with s, which is not hexadecimal.
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("gateway", _KEY, nullable=False),
    sa.Column("key", _KEY, nullable=False),
    sa.Column("channel", _KEY, nullable=False),
    sa.Column("name", sa.String(60), nullable=False),
    sa.Column("created_at", _SECONDS, nullable=False),
    sa.Column("expires_at", _SECONDS, nullable=False),
    _count("opens"),
    sa.Column("opened_at", _SECONDS),
)
"""Links that show one channel's QR code or status without a login."""

message_audit = _table(
    "message_audit",
    sa.Column("gateway", _KEY, primary_key=True),
    # Empty for the whole gateway, which is later split into a row per channel.
    sa.Column("key", _KEY, primary_key=True),
    sa.Column("channel", _KEY, nullable=False),
    # When the outage began, when its next audit is due, and its last one. NULL: none.
    sa.Column("since", _SECONDS),
    sa.Column("due_at", _SECONDS),
    sa.Column("last_due_at", _SECONDS),
    # The last audit, and the time of the last one with a known result.
    sa.Column("result", _WORD),
    sa.Column("detail", sa.String(500), nullable=False, default="", server_default=""),
    _count("received"),
    _count("missed"),
    sa.Column("audited_at", _SECONDS),
    sa.Column("known_at", _SECONDS),
    # When a delivery of its missed messages is due, and why the last one left some.
    sa.Column("replay_at", _SECONDS),
    sa.Column("replay_why", sa.String(500), nullable=False, default="", server_default=""),
    sa.Index("ix_message_audit_due", "gateway", "due_at"),
    sa.Index("ix_message_audit_replay", "gateway", "replay_at"),
)
"""Message audits, one row a channel: when the next is due, and the last result."""

missed_message = _table(
    "missed_message",
    sa.Column("gateway", _KEY, primary_key=True),
    sa.Column("key", _KEY, primary_key=True),
    # WhatsApp's message id, without the chat.
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("at", _SECONDS, nullable=False),
    sa.Column("kind", _WORD, nullable=False),
    # The last four digits of the chat.
    sa.Column("chat", sa.String(4), nullable=False),
    sa.Column("found_at", _SECONDS, nullable=False, index=True),
    # When an audit found that it had arrived late.
    sa.Column("arrived_at", _SECONDS),
    # Result of its delivery (message_replay.Replay), time, details. NULL: none yet.
    sa.Column("replay", _WORD),
    sa.Column("replayed_at", _SECONDS),
    sa.Column("replay_detail", sa.String(250), nullable=False, default="", server_default=""),
)
"""Messages that audits found missing, for 30 days; without text or phone number."""

listed_channels = _table(
    "listed_channels",
    sa.Column("gateway", _KEY, primary_key=True),
    # JSON by key: [id, time since which it is missing (Unix seconds) or null].
    sa.Column("channels", sa.Text().with_variant(LONGTEXT(), "mysql"), nullable=False),
)
"""The channels of each gateway's list at the last ``check``."""

VERSION_TABLE = "zapwatch_schema"
"""The table with the current revision."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_NEWEST = max(path.stem[1:5] for path in (_MIGRATIONS / "versions").glob("v[0-9]*.py"))
_LOCK_SECONDS = 60
_UNKNOWN = "its tables are not known to this version"
_FIRST = "0012"
"""The revision of the first release."""
# Alembic would log at each start that there is nothing to do.
logging.getLogger("alembic").setLevel(logging.WARNING)
_in_this_process = threading.Lock()


def open_state(url: sa.URL, *, clock: Clock | None = None) -> Database:
    """Open the state database and bring its tables up to date; raise StateError."""
    database = Database(url, upgrade, clock=clock)
    try:
        database.open()
    except StateError:
        database.close()
        raise
    return database


def upgrade(engine: sa.Engine) -> None:
    """Apply the missing revisions; of hooks that start together, one does and the others wait.

    Raises StateError if the database is newer than this version or from a checkout before the first
    release, and SQLAlchemy's errors.
    """
    # Alembic keeps its context in globals.
    with _in_this_process, _alone(engine), engine.begin() as connection:
        lock_sqlite(connection)
        version = _version(connection)
        if version is not None and version < _FIRST:
            before = "af2f1b0" if version > "0005" else "4e622a2, then af2f1b0,"
            raise StateError(
                f"{_UNKNOWN}: revision {version} was never released; delete them, and alerts fill "
                f"a new state, or start commit {before} once with them"
            )
        if version != _NEWEST:
            _take_steps(connection)


def _take_steps(connection: sa.Connection) -> None:
    # Importing it takes a seventh of the program's start.
    from alembic import command  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = configuration()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StateError(f"{_UNKNOWN}: {error}") from None


def configuration() -> Config:
    """Return Alembic's configuration, without an ini file."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def _version(connection: sa.Connection) -> str | None:
    """Return the current revision, None for an empty database."""
    tables = sa.inspect(connection)
    if tables.has_table(VERSION_TABLE):
        version_num = sa.column("version_num", sa.String)
        return connection.scalar(sa.select(version_num).select_from(sa.table(VERSION_TABLE)))
    columns = tables.get_columns("repairs") if tables.has_table("repairs") else ()
    # A column of the first tables, which recorded no revision.
    return "0001" if any(column["name"] == "not_before" for column in columns) else None


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[None]:
    """Lock out other programs until after the commit."""
    if engine.dialect.name == "sqlite":
        # SQLite's transaction locks, and rolls back a failed revision.
        yield
        return
    # MariaDB commits at every DDL statement, so a named lock on its own connection spans all of
    # them. MySQL limits its name to 64 characters.
    values = {"name": f"zapwatch/{engine.url.database}"[:64], "seconds": _LOCK_SECONDS}
    with engine.connect() as connection:
        if connection.scalar(sa.text("SELECT GET_LOCK(:name, :seconds)"), values) != 1:
            raise StateError(
                f"{_UNKNOWN}: another program has been changing them for {_LOCK_SECONDS} s"
            )
        try:
            yield
        finally:
            connection.execute(sa.text("DO RELEASE_LOCK(:name)"), {"name": values["name"]})
