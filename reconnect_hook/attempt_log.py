"""Each channel's last probes and repairs, step by step."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

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
        steps = [[round(step.at, 3), step.kind, step.words] for step in self.steps]
        return {
            "key": self.key,
            "kind": self.kind,
            "outcome": self.outcome,
            "ended_at": self.ended_at,
            "steps": json.dumps(steps, ensure_ascii=False, separators=(",", ":")),
        }

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


_Name = tuple[AttemptKind, str]


@dataclass(slots=True)
class NewSteps:
    """Steps added, and attempts begun and ended, in one transaction."""

    at: float
    steps: dict[_Name, list[AttemptStep]] = field(default_factory=dict)
    ended: list[LoggedAttempt] = field(default_factory=list)
    begun: set[_Name] = field(default_factory=set)
    over: set[_Name] = field(default_factory=set)

    def begin(self, kind: AttemptKind, key: str, asked_by: str, since: float) -> None:
        """Begin an attempt; remaining steps of an earlier one are dropped."""
        self.begun.add((kind, key))
        self.over.discard((kind, key))
        self.steps[kind, key] = [AttemptStep(since, StepKind.ASKED, asked_by)]

    def add(self, kind: AttemptKind, key: str, step: StepKind, words: str = "") -> None:
        """Add a step at the transaction's time."""
        self.extend(kind, key, [AttemptStep(self.at, step, words)])

    def extend(self, kind: AttemptKind, key: str, steps: Sequence[AttemptStep]) -> None:
        """Add steps, their words cut to _MOST_WORDS characters."""
        short = [step._replace(words=step.words[:_MOST_WORDS]) for step in steps]
        self.steps.setdefault((kind, key), []).extend(short)


class AttemptSteps:
    """Steps of attempts in progress, lost if the leader dies. Not thread-safe."""

    def __init__(self) -> None:
        self._steps: dict[_Name, list[AttemptStep]] = {}

    def forget(self) -> None:
        """Drop all steps, with the lead."""
        self._steps.clear()

    def end(self, new: NewSteps, kind: AttemptKind, key: str, outcome: str, detail: str) -> None:
        """End an attempt in a transaction, unless it has no steps."""
        name = kind, key
        if name not in self._steps and name not in new.steps:
            return
        new.add(kind, key, StepKind.ENDED, detail)
        steps = self._all(new, name)
        new.ended.append(LoggedAttempt(key, kind, outcome, new.at, tuple(steps)))
        new.over.add(name)

    def commit(self, new: NewSteps) -> None:
        """Apply a committed transaction's steps."""
        for name in new.steps:
            self._steps[name] = self._all(new, name)
        for name in new.over:
            del self._steps[name]

    def _all(self, new: NewSteps, name: _Name) -> list[AttemptStep]:
        before = [] if name in new.begun else self._steps.get(name, [])
        found: list[AttemptStep] = []
        for step in [*before, *new.steps[name]]:
            # A list with an unchanged status is no step.
            if not found or step.kind is not StepKind.LISTED or step[1:] != found[-1][1:]:
                found.append(step)
        return found[: _MOST_STEPS - 1] + found[_MOST_STEPS - 1 :][-1:]
