"""The event log, one line a failure or repair, and each channel's last attempts step by step."""

from __future__ import annotations

import enum
import json
import logging
import os
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from reconnect_hook.models import Action, AskedBy, Outcome, RepairCause
from zapwatch.server import logfmt_line

_log = logging.getLogger("reconnect_hook")
_MODE = 0o640


class EventLogError(Exception):
    """The log is not writable. ``str()`` is one line."""


class EventLog:
    """Appends to one file, which logrotate may move at any time; thread-safe."""

    def __init__(self, path: Path) -> None:
        """Create the file and its folder if missing; raise EventLogError."""
        self._path = path
        self._always: dict[str, object] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(_open(path))
        except OSError as error:
            raise EventLogError(f"{error.filename}: {error.strerror}") from None

    def with_pairs(self, **always: object) -> EventLog:
        """Return the same log with these pairs at the end of each line."""
        other = copy(self)
        other._always = always  # noqa: SLF001 - an instance of this class
        return other

    def write(self, **values: object) -> None:
        """Write one line of ``name=value`` pairs; see write_all()."""
        self.write_all([values])

    def write_all(self, events: Iterable[Mapping[str, object]]) -> None:
        """Write a line of ``name=value`` pairs for each event; None values are left out.

        If the file is not writable, the lines go to stderr instead.
        """
        now = datetime.now().astimezone()
        lines = [f"{format_event(now, {**event, **self._always})}\n".encode() for event in events]
        try:
            self._append(lines)
        except OSError as error:
            for line in lines:
                _log.error(
                    "the log file cannot be written (%s); its line was: %s",
                    error.strerror,
                    line.decode().rstrip("\n"),
                )

    def _append(self, lines: list[bytes]) -> None:
        """Append lines and remove the written ones from the list; raise OSError."""
        # Opened each time, since events are rare and logrotate may have moved the file. A single
        # unbuffered write does not mix with those of other processes.
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = _open(self._path)
        try:
            while lines:
                written = os.write(file, b"".join(lines))
                while lines and written >= len(lines[0]):
                    written -= len(lines.pop(0))
                if written:
                    lines[0] = lines[0][written:]
        finally:
            os.close(file)


def _open(path: Path) -> int:
    """Open the file for appending; a new one is readable by owner and group only.

    It may be a pipe: the state's transaction must not wait for its reader.
    """
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, _MODE)


def format_event(at: datetime, values: Mapping[str, object]) -> str:
    """Return the line of one event; ``at`` must be time zone aware."""
    return f"{at.isoformat(timespec='seconds')} [healthcheck-sessions] {logfmt_line(values)}"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A finished repair for the log, the record and the metrics."""

    key: str
    channel: str
    listed: bool
    cause: RepairCause
    asked_by: AskedBy
    accepted_at: float
    attempt: int
    action: Action
    outcome: Outcome
    detail: str
    seconds: float = 0.0
    """Its duration, 0 without a call."""

    def as_line(self) -> Mapping[str, object]:
        """Return the pairs of its line in the event log."""
        return {
            "channel": self.channel,
            "reason": self.cause,
            "action": self.action,
            "outcome": self.outcome,
            "attempt": self.attempt,
            "seconds": f"{self.seconds:.1f}",
            "detail": self.detail or None,
        }


KEPT_ATTEMPTS = 20
"""Attempts kept per channel; the hourly pruning deletes older ones."""

UNABLE = "unable"
"""The outcome of a probe that could not run."""

_MOST_STEPS = 50  # of one attempt: the first ones, and the last
_MOST_WORDS = 250  # characters of one step


class AttemptKind(enum.StrEnum):
    """Kind of attempt."""

    PROBE = "probe"
    REPAIR = "repair"


class StepKind(enum.StrEnum):
    """One action or observation; the content of ``words`` is in brackets."""

    ASKED = "asked"
    """The attempt was requested (AskedBy)."""
    LISTED = "listed"
    """The gateway's list showed the channel (Status, or ``absent``)."""
    CALLED = "called"
    """A call was made (Step)."""
    ANSWERED = "answered"
    """The call was answered (name of QrKind, or ``done``)."""
    FAILED = "failed"
    """A call failed (the gateway's error message)."""
    VERIFYING = "verifying"
    """The list verifies the answer."""
    QUERIED = "queried"
    """A query was answered."""
    COMPARED = "compared"
    """The gateway's newest message was compared with those that arrived (the result)."""
    SENT = "sent"
    """An echo was sent (sender and receiver)."""
    HEARD = "heard"
    """The echo has arrived."""
    LOST = "lost"
    """The echo has not arrived."""
    POSTPONED = "postponed"
    """The probe resumes later (the reason)."""
    ENDED = "ended"
    """The attempt ended (details of the outcome)."""


class AttemptStep(NamedTuple):
    """A step; ``at`` is Unix seconds, in a worker the monotonic clock."""

    at: float
    kind: StepKind
    words: str = ""


@dataclass(frozen=True, slots=True)
class LoggedAttempt:
    """A finished attempt; times are Unix seconds by the database's clock."""

    key: str
    kind: AttemptKind
    outcome: str
    ended_at: float
    steps: tuple[AttemptStep, ...]

    @property
    def began_at(self) -> float:
        """Time of the first step."""
        return self.steps[0].at

    def as_row(self) -> dict[str, object]:
        """Return the table's values; the steps are JSON."""
        steps = [step._replace(at=round(step.at, 3)) for step in self.steps]
        text = json.dumps(steps, ensure_ascii=False, separators=(",", ":"))
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"steps": text}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Return the attempt of a table row."""
        steps = json.loads(row["steps"])
        return cls(
            row["key"],
            AttemptKind(row["kind"]),
            row["outcome"],
            row["ended_at"],
            tuple(AttemptStep(at, StepKind(kind), words) for at, kind, words in steps),
        )


AttemptName = tuple[AttemptKind, str]
"""An attempt's kind, and its channel's key."""


@dataclass(slots=True)
class AttemptSteps:
    """One transaction's steps of attempts in progress; commit() adds them to those ``before``.

    Those of an attempt that this leader has begun begin with ASKED. Not thread-safe.
    """

    at: float
    before: dict[AttemptName, list[AttemptStep]]
    steps: dict[AttemptName, list[AttemptStep]] = field(default_factory=dict)
    ended: list[LoggedAttempt] = field(default_factory=list)

    def begin(self, kind: AttemptKind, key: str, asked_by: str, since: float) -> None:
        """Begin an attempt; remaining steps of an earlier one are dropped."""
        self.steps[kind, key] = [AttemptStep(since, StepKind.ASKED, asked_by)]

    def add(
        self,
        kind: AttemptKind,
        key: str,
        step: StepKind,
        words: str = "",
        at: float | None = None,
    ) -> None:
        """Add a step, at the transaction's time or at another; ``words`` may be cut."""
        name, before = (kind, key), self.before.get((kind, key), ())
        steps = self.steps.setdefault(name, [*before])
        added = AttemptStep(self.at if at is None else at, step, words[:_MOST_WORDS])
        # A list with an unchanged status is no step.
        if step is StepKind.LISTED and steps and added[1:] == steps[-1][1:]:
            return
        if len(steps) == _MOST_STEPS:
            steps.pop()
        steps.append(added)

    def end(self, kind: AttemptKind, key: str, outcome: str, detail: str) -> None:
        """End an attempt, unless it has no steps."""
        if (kind, key) in self.before or (kind, key) in self.steps:
            self.add(kind, key, StepKind.ENDED, detail)
            steps = tuple(self.steps[kind, key])
            self.ended.append(LoggedAttempt(key, kind, outcome, self.at, steps))

    def commit(self) -> None:
        """Apply the committed transaction's steps."""
        for name, steps in self.steps.items():
            if steps[-1].kind is StepKind.ENDED:
                self.before.pop(name, None)
            else:
                self.before[name] = steps
