"""Which channels are dead, by what was asked of them and what was heard: decided without asking."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace


@dataclass(slots=True)
class Evidence:
    """What has been found out since a probe began, by channel key."""

    heard: set[str] = field(default_factory=set)
    """Something came in: both the way to it and the log work."""
    spoke: set[str] = field(default_factory=set)
    """An echo that it has sent was heard."""
    answered: set[str] = field(default_factory=set)
    """A query worked: its connection does."""
    mute: set[str] = field(default_factory=set)
    """Queries failed, twice in a row."""
    lost: set[tuple[str, str]] = field(default_factory=set)
    """Echoes that were not heard: who sent it, and who did not get it."""

    def without(self, keys: AbstractSet[str]) -> Evidence:
        """Return this without what speaks against these: they were repaired since."""
        lost = {pair for pair in self.lost if keys.isdisjoint(pair)}
        return replace(self, mute=self.mute - keys, lost=lost)


def dead(evidence: Evidence) -> set[str]:
    """Return those that are proved to be dead.

    A lost echo alone does not say which of the two is. It says so of the receiver if the sender is
    known to be connected, and of the sender if the receiver hears. A zombie that only no longer
    hears is connected all the same. If nobody was heard, it may be the log that does not get to
    know: then an echo proves nothing.
    """
    found = evidence.mute - evidence.heard
    if not evidence.heard:
        return found
    connected = evidence.heard | evidence.spoke | evidence.answered
    for sender, receiver in evidence.lost:
        if receiver in evidence.heard:
            if sender not in connected:
                found.add(sender)
        elif sender in connected:
            found.add(receiver)
    return found
