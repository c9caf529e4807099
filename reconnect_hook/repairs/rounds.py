"""Looks at the list for many repairs at once: for a long queue, and for those in a pause."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from reconnect_hook.alerts import Reason
from reconnect_hook.outcomes import Job, Outcome, Result
from reconnect_hook.repairs.channel_lists import ChannelLists
from reconnect_hook.state.backlog import Backlog, Paused
from reconnect_hook.state.jobs import Jobs
from whatsapp.channels import Channel, Status
from whatsapp.gateways.gateway import GatewayError

ROUND_SECONDS = 30.0
"""How often the gateway is asked while a repair waits for the end of its pause."""

LONG_QUEUE = 20
"""Of so many repairs, those whose channel came back by itself are ended in one go."""

_AT_ONCE = 100  # ended in one transaction, so that nobody waits long for it

Conclude = Callable[[Sequence[tuple[Job, Result]]], None]
"""Logs, records and counts how repairs ended."""


class Rounds:
    """One look at the list for all; none where there is nothing to look for."""

    def __init__(
        self, backlog: Backlog, jobs: Jobs, lists: ChannelLists, conclude: Conclude
    ) -> None:
        self._backlog = backlog
        self._jobs = jobs
        self._lists = lists
        self._conclude = conclude
        self._next_sweep = float("-inf")
        self._next_round = float("-inf")

    def go(self) -> bool:
        """Look, if it is time to; whether a pause was ended. Raises StateError."""
        try:
            if time.monotonic() >= self._next_sweep:
                self._sweep()
            if time.monotonic() >= self._next_round:
                return self._end_pauses()
        except GatewayError:
            pass  # the repairs themselves will meet it, and tell
        return False

    def _sweep(self) -> None:
        """End what a long queue holds of channels that have come back by themselves."""
        due = self._backlog.due()
        if len(due) < LONG_QUEUE:
            return
        began = time.monotonic()
        listed = self._lists.since(began)
        # A list that takes long is asked less often.
        self._next_sweep = time.monotonic() + self._lists.seconds
        back = [repair_id for repair_id, key in due if key in listed and listed[key].connected]
        for begin in range(0, len(back), _AT_ONCE):
            jobs = self._jobs.claim_these(back[begin : begin + _AT_ONCE])
            self._conclude([(job, _recovered(listed[job.key])) for job in jobs])

    def _end_pauses(self) -> bool:
        """End the pauses that have become pointless: the gateway or the status changed."""
        self._next_round = time.monotonic() + ROUND_SECONDS
        paused = self._backlog.paused()
        if not paused:
            return False
        try:
            listed = self._lists.since(time.monotonic())
        finally:
            self._next_round = time.monotonic() + max(ROUND_SECONDS, 2 * self._lists.seconds)
        return self._hasten(paused, listed)

    def _hasten(self, paused: Sequence[Paused], listed: Mapping[str, Channel]) -> bool:
        well, pointless, changed = [], [], []
        for one in paused:
            channel = listed.get(one.key)
            if channel is not None and _is_well(one, channel):
                well.append(one)
            elif channel is None or (one.failing and one.status is None):
                pointless.append(one)  # it is gone, or its gateway answers again
            elif one.status != channel.status:
                changed.append(one)
        if well:
            self._backlog.look_at(well)
        if pointless or changed:
            self._backlog.hasten(pointless, changed)
        return bool(well or pointless or changed)


def _is_well(paused: Paused, channel: Channel) -> bool:
    """Whether there is nothing left to repair."""
    came_back = paused.status not in {None, Status.CONNECTED}
    return channel.connected and (paused.reason is Reason.DISCONNECTED or came_back)


def _recovered(channel: Channel) -> Result:
    return Result(channel.id, Outcome.RECOVERED, status=channel.status, gateway_failed=False)
