"""Which channels are dead, by what was asked of them and what was heard: decided without asking."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

DELIVERY_SECONDS = 30.0
"""Within so many seconds a log has an echo that was sent, or shows later things without it."""

_NEVER = float("-inf")


@dataclass(slots=True)
class Evidence:
    """What has been found out since a probe began, by channel key.

    Each with its moment by this machine's monotonic clock: what is true of a channel now need not
    have been when an echo was sent, since channels die and come back meanwhile.
    """

    heard: dict[str, float] = field(default_factory=dict)
    """Something came in: both the way to it and the log work."""
    spoke: dict[str, float] = field(default_factory=dict)
    """An echo that it has sent was heard."""
    answered: dict[str, float] = field(default_factory=dict)
    """A query worked: its connection does."""
    mute: set[str] = field(default_factory=set)
    """Queries failed, twice in a row."""
    lost: dict[tuple[str, str], float] = field(default_factory=dict)
    """Echoes that were not heard: who sent it, and who did not get it."""

    def without(self, keys: AbstractSet[str]) -> Evidence:
        """Return this without what speaks against these: they were repaired since."""
        lost = {pair: at for pair, at in self.lost.items() if keys.isdisjoint(pair)}
        return replace(self, mute=self.mute - keys, lost=lost)

    def connected_at(self, key: str) -> float:
        """Return when it was last shown that a channel is connected."""
        return max(shown.get(key, _NEVER) for shown in (self.heard, self.spoke, self.answered))


def find_dead(evidence: Evidence) -> set[str]:
    """Return those that are proved to be dead.

    A lost echo alone does not say which of the two is. It says so of the receiver if the sender is
    shown to be connected afterwards, and of the sender if the receiver hears afterwards. A zombie
    that only no longer hears is connected all the same. As long as the log tells of nothing later,
    it may be the log that does not get to know, or not yet: then an echo proves nothing.
    """
    found = evidence.mute - evidence.heard.keys()
    told_until = max(evidence.heard.values(), default=_NEVER)
    for (sender, receiver), sent_at in evidence.lost.items():
        if told_until < sent_at + DELIVERY_SECONDS:
            continue
        if evidence.heard.get(receiver, _NEVER) >= sent_at:
            if evidence.connected_at(sender) < sent_at:
                found.add(sender)
        elif evidence.connected_at(sender) >= sent_at:
            found.add(receiver)
    return found
