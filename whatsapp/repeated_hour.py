"""Which of its two times a row was written at, where clocks were put back an hour."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from whatsapp.message_log import Row

_SLACK_SECONDS = 300.0  # by which rows may be out of order, or a clock be corrected


def settled(rows: Iterable[Row], not_after: float) -> list[Row]:
    """Return rows newest first, each with one time.

    The log keeps local time, which an hour in autumn has twice. Ids grow with time, so a row was
    not written after the one that follows it: the later of its two times counts unless that is
    after ``not_after`` (Unix seconds: the time of the row that follows the last of these, or now).
    """
    result = []
    for row in sorted(rows, key=lambda row: row.id, reverse=True):
        time = row.time
        if time is not None and row.other_time is not None:
            earlier, later = sorted((time, row.other_time))
            time = later if later <= not_after + _SLACK_SECONDS else earlier
            row = replace(row, time=time, other_time=None)  # noqa: PLW2901
        if time is not None and time <= not_after + _SLACK_SECONDS:
            not_after = time
        result.append(row)
    return result
