"""The command ``check``, for cron: check all channels once and repair those that need it."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Collection, Mapping
from datetime import datetime
from functools import partial
from urllib.parse import urlsplit

from reconnect_hook.alerts import Alert, AlertStatus, Target
from reconnect_hook.history import Attempt
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.models import (
    FAILURES,
    RECOVERIES,
    SILENCES,
    AskedBy,
    Backoff,
    ChannelRow,
    GatewayRow,
    Outcome,
    RepairCause,
)
from reconnect_hook.reconciler import Scheduler
from reconnect_hook.repository import add_gateways, next_look, poll
from reconnect_hook.supervisor import GatewayController, Store, open_store
from reconnect_hook.workers import Listed
from zapwatch.channels import ByName, Channel, Status, channel_key
from zapwatch.cli import printable
from zapwatch.clock import Clock
from zapwatch.config import GatewaySettings, Settings
from zapwatch.config.readers import fingerprint
from zapwatch.db import Database, StateError
from zapwatch.gateways.base import LEFT_OUT_WORDS, ChannelList, GatewayError, LeftOut
from zapwatch.gateways.registry import make_gateway
from zapwatch.messages.message import ActivitySnapshot, MessageLogError
from zapwatch.messages.source import find_since_last_run, open_source

_POLL_SECONDS = 0.1
_STOP_SECONDS = 2.0
# A run every 15 minutes sees few of the drops that WhatsAppChannelFlapping counts.
_FLAPPING_SECONDS = 6 * 3600.0
_FLAPPING_TIMES = 4


class Check:
    """One run at one gateway. Prints nothing if there is no fault, unless verbose."""

    def __init__(
        self,
        settings: Settings,
        gateway: GatewaySettings,
        running: tuple[Store, Scheduler] | None,
        *,
        verbose: bool,
    ) -> None:
        """Without ``running`` (dry run), change nothing."""
        self._settings = settings
        self._gateway = gateway
        self._verbose = verbose
        metrics = HookMetrics()
        self._controller: GatewayController | None = None
        self._database: Database | None = None
        self._clock = Clock()
        if running is None:
            self._client = make_gateway(gateway, observe=metrics.calls.of(gateway.name))
        else:
            store, self._scheduler = running
            self._database, self._clock = store.database, store.database.clock
            self._controller = GatewayController(
                settings, gateway, store, metrics, self._scheduler, asked_by=AskedBy.CHECK
            )
            self._controller.reconciler.warns = False  # check prints each outcome itself
            self._client = self._controller.client
        # Queried only for the channels just listed, so it needs no list.
        self._messages = open_source(settings, gateway)
        self.has_problem = False
        self.state_error: StateError | None = None

    def run(self) -> None:
        """Check; set ``has_problem`` if something is unreadable or a repair failed."""
        try:
            self._run()
        except StateError as error:
            self.has_problem, self.state_error = True, error
        except Exception:
            self.has_problem = True  # unexpected: the check is incomplete
            raise

    def _run(self) -> None:
        look = self._begin_look()
        asked_at = self._clock.monotonic()
        try:
            listed = self._client.list_channels()
        except GatewayError as error:
            self._explain(error)
            return
        answered_at = self._clock.monotonic()
        channels = listed.channels
        self._tell_list(listed)
        activity = self._read_messages([channel for channel in channels if channel.connected])
        wanted = self._wanted(channels, activity)
        if self._controller is None:
            by_id = {channel.id: channel for channel in channels}
            for target in wanted:
                silent = target.reason in SILENCES
                call = self._client.planned_call(by_id[target.channel], silent=silent)
                self._print(f"{target.channel}: {target.reason}; would call {call}")
            return
        by_key = {channel.key: channel for channel in channels}
        ages = {key: activity.age(key) for key in by_key} if activity else {}
        known = {key: age for key, age in ages.items() if age is not None}
        given = Listed(look, asked_at, answered_at, by_key, known)
        self._controller.reconciler.use_list(given)
        self._controller.writer.listed_in = look
        self._repair(self._controller, wanted)

    def _tell_list(self, listed: ChannelList) -> None:
        """Print the sessions that are not watched, and the channels that have left the list."""
        self._say(f"{len(listed.channels)} channels listed")
        for name in listed.ignored:
            self._say(f"{name}: ignored by the settings")
        for reason, count in listed.left_out.items():
            # People cannot fix remains of sessions without an id.
            tell = self._say if reason is LeftOut.UNUSABLE_ID else self._print
            tell(f"left out of the list: {count} {LEFT_OUT_WORDS[reason]}")
        if self._controller is None:
            return
        ids = {channel.key: channel.id for channel in listed.channels}
        ignored = set(map(channel_key, listed.ignored))
        rest = ByName(dict.fromkeys(self._gateway.ignore.keys() - ignored, True))

        def is_ignored(key: str) -> bool:
            return key in ignored or bool(rest.of(Channel(key, Status.UNKNOWN)))

        for name in self._controller.history.note_listed(ids, is_ignored):
            self._print(
                f"{name}: the gateway no longer lists it: create the session again under the same "
                "name, unless it was removed on purpose"
            )

    def _begin_look(self) -> int:
        """Return the number of this look, 0 in a dry run."""
        if self._database is None:
            return 0
        add_gateways(self._database, [self._gateway.name])
        return self._database.transact(partial(next_look, name=self._gateway.name))

    def _read_messages(self, channels: Collection[Channel]) -> ActivitySnapshot | None:
        if self._gateway.message_log_error:
            self._complain(
                "read_log", self._gateway.message_log_error, "silent channels cannot be detected"
            )
        if self._messages is None:
            return None
        try:
            view = (
                find_since_last_run(self._messages, channels, self._database, self._gateway)
                if self._database is not None
                else self._messages.find(channels)
            )
        except MessageLogError as error:
            self._complain("read_log", str(error), "silent channels cannot be detected")
            return None
        if view.unnamed:
            self._say(f"of {view.rows_read} rows read, {view.unnamed} messages name no channel")
        if view.clock_offset:
            way = "back" if view.clock_offset < 0 else "ahead"
            self._say(
                f"rows are dated {_hours(abs(view.clock_offset))} {way}: has their writer another "
                "time zone than the database?"
            )
        return view

    def _wanted(self, channels: Collection[Channel], view: ActivitySnapshot | None) -> list[Target]:
        wanted: list[Target] = []
        unheard: dict[str, Channel] = {}
        for channel in channels:
            if not channel.connected:
                wanted.append(Target(channel.id, RepairCause.DISCONNECTED))
                known = channel.status is Status.DISCONNECTED
                said = "" if known else f", its status is {channel.status}"
                self._say(f"{channel.id}: {RepairCause.DISCONNECTED}{said}")
            elif view is None:
                self._say(f"{channel.id}: connected")
            elif (age := view.age(channel.key)) is None:
                unheard[channel.key] = channel
                self._say(f"{channel.id}: connected, no message known")
            else:
                limit = self._gateway.silence_threshold(channel)
                is_silent = age > limit
                if is_silent:
                    wanted.append(Target(channel.id, RepairCause.SILENT))
                status = RepairCause.SILENT if is_silent else Status.CONNECTED
                last = f"last message {_hours(age)} ago, limit {_hours(limit)}"
                self._say(f"{channel.id}: {status}, {last}")
        return wanted + ([] if view is None else self._never_heard(unheard))

    def _never_heard(self, unheard: Mapping[str, Channel]) -> list[Target]:
        """Return the channels without a message for longer than the silence threshold.

        The time runs from the first check that found none: a new channel has had no chance yet.
        """
        if self._controller is None:
            return []
        ids = {key: channel.id for key, channel in unheard.items()}
        seconds = self._controller.history.note_unheard(ids)
        return [
            Target(channel.id, RepairCause.NEVER_HEARD)
            for key, channel in unheard.items()
            if seconds[key] >= self._gateway.silence_threshold(channel)
        ]

    def _repair(self, controller: GatewayController, wanted: list[Target]) -> None:
        """Queue repairs, and wait until no repair is due or in progress."""
        history, names = controller.history, {target.key: target for target in wanted}
        newest = history.newest_id()
        controller.writer.accept([Alert(AlertStatus.FIRING, target) for target in wanted])
        self._scheduler.add([controller.reconciler])
        ended: set[str] = set()
        while True:
            # Rows first: a repair that ends in between is then in the records.
            unsettled = self._is_to_look(controller) or history.unsettled()
            for attempt in history.ended_after(newest):
                newest = attempt.id
                ended.add(attempt.key)
                self._tell(attempt, names)
            failed = controller.reconciler.failed_list
            if failed is not None:
                self._complain("list", str(failed), "what is not repaired waits for the next run")
                return
            if not unsettled:
                break
            self._clock.sleep(_POLL_SECONDS)
        gateway, rows, at = history.state_of(names.keys() - ended)
        for row in rows.values():
            if row.is_open:
                why = _why_it_waits(row, gateway, history.backoff, at)
                self._print(f"{row.channel}: {names[row.key].reason}; {why}")

    def _is_to_look(self, controller: GatewayController) -> bool:
        """Whether the list is still to be evaluated here, because no other hook leads."""
        if self._database is None or not controller.reconciler.given:
            return False
        polled = poll(self._database)[self._gateway.name]
        rests = polled.gateway.rests(polled.at)
        return not rests and (controller.reconciler.leads or not polled.gateway.is_led(polled.at))

    def _tell(self, attempt: Attempt, wanted: Mapping[str, Target]) -> None:
        if attempt.key in wanted or attempt.outcome is not Outcome.RECOVERED:
            more = f": {attempt.detail}" if attempt.outcome in FAILURES and attempt.detail else ""
            more = self._flapping(attempt) or more
            self._print(f"{attempt.channel}: {attempt.reason}; {attempt.outcome}{more}")
        self.has_problem |= attempt.outcome in {Outcome.FAILED, Outcome.UNKNOWN_CHANNEL}

    def _flapping(self, attempt: Attempt) -> str:
        """Return a note if the channel has recovered too often lately, else an empty string."""
        if attempt.outcome not in RECOVERIES or self._controller is None:
            return ""
        times = sum(
            one.outcome in RECOVERIES
            and one.reason is RepairCause.DISCONNECTED
            and one.finished_at >= attempt.finished_at - _FLAPPING_SECONDS
            for one in self._controller.history.of_channel(attempt.key)
        )
        if times < _FLAPPING_TIMES:
            return ""
        return f", {times} times in 6 hours: is the session open twice?"

    def _explain(self, error: GatewayError) -> None:
        """Print why the list failed; if verbose, also hints at the wrong setting."""
        self._complain("list", str(error), "no channel could be checked")
        parts = urlsplit(self._gateway.base_url)
        default = 443 if parts.scheme == "https" else 80
        port = (
            f"port {parts.port}"
            if parts.port
            else f"no port, so {default}: is :{self._client.usual_port} missing?"
        )
        channels = self._gateway.channels
        secrets = [f"secret of {one.name}: {fingerprint(one.secret)}" for one in channels]
        if not channels:
            secrets = [f"secret: {fingerprint(self._gateway.secret)}"]
        for line in (
            f"URL: {self._gateway.base_url} ({port})",
            *secrets,
            f"came back: {error.detail}"
            + (f" (HTTP {error.http_status})" * bool(error.http_status)),
            f"most likely: {self._client.hints[error.reason]}",
            f"request id for the gateway's log: {error.request_id}",
        ):
            self._say(line)

    def _complain(self, action: str, detail: str, consequence: str) -> None:
        self.has_problem = True
        print(f"check: {self._named(detail)}; {consequence}", file=sys.stderr)  # noqa: T201
        if self._controller is not None:
            self._controller.events.write(action=action, outcome="failed", detail=detail)

    def _say(self, line: str) -> None:
        if self._verbose:
            self._print(line)

    def _print(self, line: str) -> None:
        print(self._named(line), flush=True)  # noqa: T201 - for the operator, or cron's mail

    def _named(self, line: str) -> str:
        named = f"{self._gateway.name}: {line}" if len(self._settings.gateways) > 1 else line
        return printable(named)


def run_check(settings: Settings, *, dry_run: bool, verbose: bool) -> int:
    """Check all gateways in parallel, so that a hanging one delays no other.

    Returns the exit code: 0 if there is no fault or every repair was accepted, else 1. Raises
    SettingsError.
    """
    # First, so that an unusable state or log fails before any call.
    store = None if dry_run else open_store(settings)
    running = (store, Scheduler(store.database)) if store else None
    checks = [Check(settings, gateway, running, verbose=verbose) for gateway in settings.gateways]
    threads = [threading.Thread(target=check.run, daemon=True) for check in checks]
    try:
        if running is not None:
            running[1].start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        if running is not None:
            running[1].stop(_STOP_SECONDS)
            running[0].database.close()
    for error in [check.state_error for check in checks if check.state_error][:1]:
        print(f"check: HOOK_STATE_URL: {printable(str(error))}", file=sys.stderr)  # noqa: T201
    return 1 if any(check.has_problem for check in checks) else 0


def _why_it_waits(row: ChannelRow, gateway: GatewayRow, backoff: Backoff, at: float) -> str:
    if row.is_paused(at):
        if row.paused_until is None:
            return "its repairs are paused until a person resumes them"
        until = datetime.fromtimestamp(row.paused_until).astimezone()
        return f"its repairs are paused until {until:%Y-%m-%d %H:%M %Z}"
    if gateway.rests(at):
        rest = math.ceil((gateway.rests_until or at) - at)
        return f"the gateway has failed too often, and is called again in {rest} s"
    if row.starting_since is not None:
        return "it is starting; the next run repairs it if it still is"
    wait = backoff.call_allowed_at(row, gateway) - at
    if row.called_at is None or wait <= 0:
        return "the next run repairs it"
    return (
        f"its last repair ended {_hours(at - row.called_at)} ago, the next one may begin in "
        f"{math.ceil(wait / 60)} min"
    )


def _hours(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
