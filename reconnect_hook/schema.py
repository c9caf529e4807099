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
_WORD = sa.String(20)
_SECONDS = sa.Double  # Unix seconds by the database's clock


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, server_default="0")


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false())


channel = sa.Table(
    "channel",
    metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    sa.Column("key", _KEY, primary_key=True),
    # The gateway's own spelling once it has listed the channel, else the alert's.
    sa.Column("channel", _KEY, nullable=False),
    _flag("listed"),
    # What is wanted of it (models.Intent), why, who asked for it, since when.
    _count("intent"),
    sa.Column("cause", _WORD),
    sa.Column("asked_by", _WORD),
    sa.Column("since", _SECONDS),
    # The number of the gateway's look at the last raise: a later look has seen what it tells of.
    _count("raised_in"),
    # When a look is wanted for it; NULL: nothing is wanted.
    sa.Column("next_at", _SECONDS),
    # What is being done (models.Phase), under which lead, until when at most.
    sa.Column("phase", _WORD, nullable=False, server_default="idle"),
    _count("epoch"),
    sa.Column("deadline", _SECONDS),
    # The last call of this repair, how often it was made, the strongest one, and for what.
    sa.Column("step", _WORD),
    _count("tries"),
    sa.Column("action", _WORD),
    _flag("silent"),
    # Of the episode: repairs, failures in a row, and repairs in a row that changed nothing.
    _count("attempts"),
    _count("failures"),
    _count("stuck"),
    sa.Column("asked_at", _SECONDS),
    # When the last call ended, or the last repair that failed; and the look's number then.
    sa.Column("called_at", _SECONDS),
    _count("called_in"),
    # When a look last found it well, so that nothing was called.
    sa.Column("seen_at", _SECONDS),
    sa.Column("last_status", _WORD),
    sa.Column("last_cause", _WORD),
    _flag("qr_required"),
    # Its session is being thrown away and made anew: whoever finds none must make one.
    _flag("restarting"),
    # The first of the looks in a row that found it starting.
    sa.Column("starting_since", _SECONDS),
    # A person has paused its repairs; without an end where paused_until is NULL.
    _flag("paused"),
    sa.Column("paused_until", _SECONDS),
    sa.Column("unheard_since", _SECONDS),
    # When its last probe began, and when that one's first query failed.
    sa.Column("probe_began_at", _SECONDS),
    sa.Column("query_failed_at", _SECONDS),
    sa.Column("probe_kind", _WORD),
    sa.Column("probe_outcome", _WORD),
    sa.Column("probe_ended_at", _SECONDS),
    # JSON: what is remembered of its webhook (delivery.WebhookMemory), no address of it.
    sa.Column("webhook", sa.Text),
    # An echo was lost: no more of them until a repair, or until it is heard.
    _flag("suspended"),
    sa.Index("ix_channel_next", "gateway", "next_at"),
    **MYSQL,
)
"""One row a channel: what is wanted of it, what is being done, and what is remembered."""

gateway = sa.Table(
    "gateway",
    metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    # How often its list was asked for; committed before each is asked.
    _count("look"),
    # Who leads it, and which change of the lead this is: the fence of each write.
    _count("epoch"),
    sa.Column("holder", sa.String(40)),
    sa.Column("lease_until", _SECONDS),
    # The circuit breaker.
    _count("failures"),
    sa.Column("failed_at", _SECONDS),
    sa.Column("rests_until", _SECONDS),
    sa.Column("back_at", _SECONDS),
    sa.Column("echo_at", _SECONDS, nullable=False, server_default="0"),
    **MYSQL,
)
"""One row a gateway: its looks, its leader, its circuit breaker, and its last echo."""

repair_log = sa.Table(
    "repair_log",
    metadata,
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
    **MYSQL,
)
"""The repairs that ended."""

attempt_log = sa.Table(
    "attempt_log",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("gateway", _KEY, nullable=False),
    sa.Column("key", _KEY, nullable=False),
    sa.Column("kind", _WORD, nullable=False),
    sa.Column("outcome", _WORD, nullable=False),
    sa.Column("ended_at", _SECONDS, nullable=False, index=True),
    # JSON: a list of [Unix seconds, attempt_log.StepKind, words].
    sa.Column("steps", sa.Text, nullable=False),
    sa.Index("ix_attempt_log_key", "gateway", "key", "id"),
    **MYSQL,
)
"""The last probes and repairs of each channel that did something, step by step."""

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

scan_links = sa.Table(
    "scan_links",
    metadata,
    # Names the link to its operator; nothing of the token follows from it.
    # That of a status link begins with s, which no hexadecimal digit is.
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
    **MYSQL,
)
"""The links by which a person without a login scans one channel's code, or sees its status."""

message_audit = sa.Table(
    "message_audit",
    metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    # Empty for the gateway as a whole, which becomes a row of each of its channels.
    sa.Column("key", _KEY, primary_key=True),
    sa.Column("channel", _KEY, nullable=False),
    # When the outage began, when an audit of it is due, and when the last one is. NULL: none.
    sa.Column("since", _SECONDS),
    sa.Column("due_at", _SECONDS),
    sa.Column("last_due_at", _SECONDS),
    # The last audit, and the moment of the last one that could know.
    sa.Column("result", _WORD),
    sa.Column("detail", sa.String(500), nullable=False, default="", server_default=""),
    _count("received"),
    _count("missed"),
    sa.Column("audited_at", _SECONDS),
    sa.Column("known_at", _SECONDS),
    # When a delivery of what it has missed is due, and why the last one left some.
    sa.Column("replay_at", _SECONDS),
    sa.Column("replay_why", sa.String(500), nullable=False, default="", server_default=""),
    sa.Index("ix_message_audit_due", "gateway", "due_at"),
    sa.Index("ix_message_audit_replay", "gateway", "replay_at"),
    **MYSQL,
)
"""The audits of messages: one row a channel, with what is due and what the last one has found."""

missed_message = sa.Table(
    "missed_message",
    metadata,
    sa.Column("gateway", _KEY, primary_key=True),
    sa.Column("key", _KEY, primary_key=True),
    # WhatsApp's own, without the chat.
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("at", _SECONDS, nullable=False),
    sa.Column("kind", _WORD, nullable=False),
    # The last four digits.
    sa.Column("chat", sa.String(4), nullable=False),
    sa.Column("found_at", _SECONDS, nullable=False, index=True),
    # When an audit found that it had come after all.
    sa.Column("arrived_at", _SECONDS),
    # What came of its delivery (message_replay.Replay), since when, and in words. NULL: none yet.
    sa.Column("replay", _WORD),
    sa.Column("replayed_at", _SECONDS),
    sa.Column("replay_detail", sa.String(250), nullable=False, default="", server_default=""),
    **MYSQL,
)
"""The messages that audits found missing, for 30 days; no text and no number."""
