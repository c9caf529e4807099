"""Scan links: temporary access to one channel's QR code or status without a login."""

from __future__ import annotations

import enum
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import sqlalchemy as sa

from reconnect_hook.schema import scan_links
from zapwatch.channels import channel_key
from zapwatch.db import Database, now, transaction


class LinkKind(enum.StrEnum):
    """Content of a link's page."""

    SCAN = "scan"
    STATUS = "status"


HOURS: Mapping[str, Sequence[int]] = {
    LinkKind.SCAN: (1, 24, 168),
    LinkKind.STATUS: (168, 720, 8760),
}
"""Allowed validity in hours, by kind."""

MAX_NAME_LENGTH = 60
MOST_LINKS = 20
"""Most valid links per channel."""

_TOKEN_BYTES = 24
_STATUS = "s"  # prefix of a status link's id and hash; not hexadecimal


class TooManyLinksError(Exception):
    """The channel already has MOST_LINKS valid links."""


@dataclass(frozen=True, slots=True)
class ScanLink:
    """A valid link, without its token; times are Unix seconds."""

    id: str
    gateway: str
    channel: str
    name: str
    created_at: float
    expires_at: float
    opens: int
    opened_at: float | None
    """Last time the page was opened."""

    @property
    def kind(self) -> LinkKind:
        """The kind, encoded in the id."""
        return LinkKind.STATUS if self.id.startswith(_STATUS) else LinkKind.SCAN


_COLUMNS = [scan_links.c[field.name] for field in fields(ScanLink)]


class ScanLinks:
    """The links of all gateways; each method raises StateError.

    The state holds only the hash of a token. Revoked links are deleted, so that they are
    indistinguishable from unknown ones.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @transaction
    def create(
        self,
        connection: sa.Connection,
        gateway: str,
        channel: str,
        name: str,
        hours: int,
        kind: str = LinkKind.SCAN,
    ) -> tuple[ScanLink, str]:
        """Return a new link and its token; raise TooManyLinksError."""
        token, key = secrets.token_urlsafe(_TOKEN_BYTES), channel_key(channel)
        at = _delete_expired(connection)
        mine = (scan_links.c.gateway == gateway, scan_links.c.key == key)
        count = sa.select(sa.func.count()).select_from(scan_links).where(*mine)
        if (connection.scalar(count) or 0) >= MOST_LINKS:
            raise TooManyLinksError
        link_id, end = _mark(secrets.token_hex(8), kind), at + hours * 3600.0
        link = ScanLink(link_id, gateway, channel, name, at, end, 0, None)
        values = asdict(link) | {"key": key, "token_hash": _hash(token, kind)}
        connection.execute(sa.insert(scan_links).values(values))
        return link, token

    def find(self, token: str) -> ScanLink | None:
        """Return a token's valid link, or None."""
        hashes = [_hash(token, kind) for kind in LinkKind]
        with self._database.read() as connection:
            valid = scan_links.c.expires_at > now(connection)
            query = sa.select(*_COLUMNS, scan_links.c.token_hash)
            found = connection.execute(query.where(scan_links.c.token_hash.in_(hashes), valid))
            row = found.mappings().one_or_none()
        if row is None:
            return None
        link = ScanLink(**{column.name: row[column.name] for column in _COLUMNS})
        right = hmac.compare_digest(row["token_hash"], _hash(token, link.kind))
        return link if right else None

    @transaction
    def note_opened(self, connection: sa.Connection, link: ScanLink) -> None:
        """Record that the page of a link was opened."""
        values = {"opens": scan_links.c.opens + 1, "opened_at": now(connection)}
        mine = sa.update(scan_links).where(scan_links.c.id == link.id)
        connection.execute(mine.values(values))

    def valid(self) -> Sequence[ScanLink]:
        """Return the valid links, the newest first."""
        with self._database.read() as connection:
            query = sa.select(*_COLUMNS).where(scan_links.c.expires_at > now(connection))
            rows = connection.execute(query.order_by(scan_links.c.created_at.desc())).mappings()
            return [ScanLink(**row) for row in rows]

    def of_channel(self, gateway: str, channel: str) -> Sequence[ScanLink]:
        """Return the valid links of one channel, the newest first."""
        key = channel_key(channel)
        return [
            link
            for link in self.valid()
            if link.gateway == gateway and channel_key(link.channel) == key
        ]

    @transaction
    def revoke(self, connection: sa.Connection, link_id: str) -> ScanLink | None:
        """Delete a link and return it, None if the id is unknown."""
        mine = scan_links.c.id == link_id
        row = connection.execute(sa.select(*_COLUMNS).where(mine)).mappings().one_or_none()
        connection.execute(sa.delete(scan_links).where(mine))
        return None if row is None else ScanLink(**row)


def prune_links(database: Database) -> None:
    """Delete the expired links of all gateways; raises StateError."""
    database.transact(_delete_expired)


def _delete_expired(connection: sa.Connection) -> float:
    """Delete expired links; return the current time in Unix seconds."""
    at = now(connection)
    connection.execute(sa.delete(scan_links).where(scan_links.c.expires_at <= at))
    return at


def _hash(token: str, kind: str) -> str:
    """Return a token's hash; an older version, which knows scan links alone, finds no others."""
    return _mark(hashlib.sha256(token.encode("utf-8", "replace")).hexdigest(), kind)


def _mark(digits: str, kind: str) -> str:
    return _STATUS + digits[1:] if kind == LinkKind.STATUS else digits
