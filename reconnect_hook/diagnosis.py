"""Diagnosis: which channels are dead, by the evidence of probes; a pure function."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

DELIVERY_SECONDS = 30.0
"""Longest time until a sent echo is in the log; later messages without it prove it lost."""

_NEVER = float("-inf")


@dataclass(slots=True)
class Evidence:
    """Evidence since a probe began, by channel key.

    Values are times of the monotonic clock: channels die and recover meanwhile, so evidence counts
    only relative to the time of an echo.
    """

    heard: dict[str, float] = field(default_factory=dict)
    """A message arrived: both its session and the log work."""
    spoke: dict[str, float] = field(default_factory=dict)
    """An echo from it arrived."""
    answered: dict[str, float] = field(default_factory=dict)
    """A query succeeded: its connection works."""
    mute: set[str] = field(default_factory=set)
    """Two consecutive queries failed."""
    lost: dict[tuple[str, str], float] = field(default_factory=dict)
    """Lost echoes by (sender, receiver)."""

    def without(self, keys: AbstractSet[str]) -> Evidence:
        """Return this without the evidence against these channels, repaired since."""
        lost = {pair: at for pair, at in self.lost.items() if keys.isdisjoint(pair)}
        return replace(self, mute=self.mute - keys, lost=lost)

    def connected_at(self, key: str) -> float:
        """Return when a channel was last shown to be connected."""
        return max(shown.get(key, _NEVER) for shown in (self.heard, self.spoke, self.answered))


def find_dead(evidence: Evidence) -> set[str]:
    """Return the keys of the channels proved dead.

    A lost echo alone does not show which side is dead. The receiver is if the sender is shown to be
    connected afterwards, which a zombie that only receives nothing still is; the sender is if the
    receiver receives a message afterwards. Until the log shows any later message, the log itself
    may be late or dead, and a lost echo proves nothing.
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
