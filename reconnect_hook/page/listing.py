"""Which channels the overview shows, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flask_babel import lazy_gettext as _

from reconnect_hook.page.rows import Kind, Row
from whatsapp.channels import channel_key

SHOWS = {
    "all": _("All channels"),
    "somebody": _("Need somebody"),
    "trouble": _("In trouble"),
    "paused": _("Repairs paused"),
}
"""What can be chosen to be shown."""

SORTS = {
    "urgency": _("By urgency"),
    "name": _("By name"),
    "message": _("By silence"),
    "repair": _("By last repair"),
}
"""And in which order."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A choice; anything that is none falls back to the first."""

    search: str = ""
    gateway: str = ""
    """Empty for all of them."""
    show: str = "all"
    sort: str = "urgency"

    @classmethod
    def parse(cls, arguments: Mapping[str, str]) -> Listing:
        """Return what a query string asks for."""
        show, sort = arguments.get("show", ""), arguments.get("sort", "")
        return cls(
            arguments.get("q", "")[:255],
            arguments.get("gateway", ""),
            show if show in SHOWS else "all",
            sort if sort in SORTS else "urgency",
        )

    def of(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows that are to be shown."""
        wanted = channel_key(self.search)
        found = [
            row
            for row in rows
            if wanted in row.key and self.gateway in {"", row.gateway} and self._shows(row)
        ]
        return sorted(found, key=self._order)

    def _shows(self, row: Row) -> bool:
        match self.show:
            case "somebody":
                return row.kind.needs_somebody
            case "trouble":
                return row.kind.is_trouble
            case "paused":
                return row.paused is not None
            case _:
                return True

    def _order(self, row: Row) -> tuple[float, str, str]:
        match self.sort:
            case "name":
                return 0, row.key, row.gateway
            case "message":
                return row.last_message or 0, row.key, row.gateway
            case "repair":
                return -(row.last.finished_at if row.last else 0), row.key, row.gateway
            case _:
                return row.kind.rank, row.key, row.gateway


def counts(rows: Iterable[Row]) -> dict[str, int]:
    """Return how many channels need somebody, are in trouble, connected, and paused."""
    every = list(rows)
    return {
        "somebody": sum(row.kind.needs_somebody for row in every),
        "trouble": sum(row.kind.is_trouble for row in every),
        "connected": sum(row.kind is Kind.CONNECTED for row in every),
        "paused": sum(row.paused is not None for row in every),
        "all": len(every),
    }
