"""The log of the last probes and repairs of each channel, step by step."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

KEPT_ATTEMPTS = 20
"""So many of each channel are kept, besides those of the last hour."""

UNABLE = "unable"
"""The outcome of a probe that could not be made."""

_MOST_STEPS = 50  # of one attempt: the first ones, and the last
_MOST_WORDS = 250  # characters of one step


class AttemptKind(enum.StrEnum):
    """What was attempted."""

    PROBE = "probe"
    REPAIR = "repair"


class StepKind(enum.StrEnum):
    """One thing that was done or seen; in brackets what its words say."""

    ASKED = "asked"
    """Somebody wanted it (AskedBy)."""
    LISTED = "listed"
    """The gateway's list showed the channel (Status, or ``absent``)."""
    CALLED = "called"
    """A call was made (Step)."""
    ANSWERED = "answered"
    """The call was answered (name of QrKind, or ``done``)."""
    FAILED = "failed"
    """A call failed (the gateway's error message)."""
    VERIFYING = "verifying"
    """The answer is verified by the list."""
    QUERIED = "queried"
    """A query was answered."""
    COMPARED = "compared"
    """The gateway's newest message was compared with those that arrived (what came of it)."""
    SENT = "sent"
    """An echo was sent (from whom to whom)."""
    HEARD = "heard"
    """The echo has arrived."""
    LOST = "lost"
    """The echo has not arrived."""
    POSTPONED = "postponed"
    """The probe goes on later (why)."""
    ENDED = "ended"
    """The attempt ended (details of the outcome)."""


class AttemptStep(NamedTuple):
    """A step at a moment: Unix seconds, or in a worker the monotonic clock's."""

    at: float
    kind: StepKind
    words: str = ""


@dataclass(frozen=True, slots=True)
class LoggedAttempt:
    """An attempt that ended; times are Unix seconds by the database's clock."""

    key: str
    kind: AttemptKind
    outcome: str
    ended_at: float
    steps: tuple[AttemptStep, ...]

    @property
    def began_at(self) -> float:
        """When its first step was."""
        return self.steps[0].at

    def as_row(self) -> dict[str, object]:
        """Return what the table holds of it."""
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
        """Return the attempt that a row of the table holds."""
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
    """The steps of one transaction, and the attempts that end in it."""

    at: float
    steps: dict[_Name, list[AttemptStep]] = field(default_factory=dict)
    ended: list[LoggedAttempt] = field(default_factory=list)
    begun: set[_Name] = field(default_factory=set)
    over: set[_Name] = field(default_factory=set)

    def begin(self, kind: AttemptKind, key: str, asked_by: str, since: float) -> None:
        """Begin an attempt that somebody wanted; what is left of another one is forgotten."""
        self.begun.add((kind, key))
        self.over.discard((kind, key))
        self.steps[kind, key] = [AttemptStep(since, StepKind.ASKED, asked_by)]

    def add(self, kind: AttemptKind, key: str, step: StepKind, words: str = "") -> None:
        """Add a step of this moment."""
        self.extend(kind, key, [AttemptStep(self.at, step, words)])

    def extend(self, kind: AttemptKind, key: str, steps: Sequence[AttemptStep]) -> None:
        """Add steps."""
        short = [step._replace(words=step.words[:_MOST_WORDS]) for step in steps]
        self.steps.setdefault((kind, key), []).extend(short)


class AttemptSteps:
    """The steps of the attempts under way; a leader that dies loses them. For one thread."""

    def __init__(self) -> None:
        self._steps: dict[_Name, list[AttemptStep]] = {}

    def forget(self) -> None:
        """Forget all of them."""
        self._steps.clear()

    def end(self, new: NewSteps, kind: AttemptKind, key: str, outcome: str, detail: str) -> None:
        """Let an attempt end in a transaction, unless nothing was done in it."""
        name = kind, key
        if name not in self._steps and name not in new.steps:
            return
        new.add(kind, key, StepKind.ENDED, detail)
        steps = self._all(new, name)
        new.ended.append(LoggedAttempt(key, kind, outcome, new.at, tuple(steps)))
        new.over.add(name)

    def commit(self, new: NewSteps) -> None:
        """Take over what a transaction has added, once it is committed."""
        for name in new.steps:
            self._steps[name] = self._all(new, name)
        for name in new.over:
            del self._steps[name]

    def _all(self, new: NewSteps, name: _Name) -> list[AttemptStep]:
        before = [] if name in new.begun else self._steps.get(name, [])
        found: list[AttemptStep] = []
        for step in [*before, *new.steps[name]]:
            # A list that shows the same again is no step.
            if not found or step.kind is not StepKind.LISTED or step[1:] != found[-1][1:]:
                found.append(step)
        return found[: _MOST_STEPS - 1] + found[_MOST_STEPS - 1 :][-1:]
