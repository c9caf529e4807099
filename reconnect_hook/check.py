"""The cron script's job, once: look at every channel and repair the ones that need it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from reconnect_hook.alerts import Alert, AlertStatus, RepairCause, Target
from reconnect_hook.dedup import Disposition
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.models import Outcome
from reconnect_hook.supervisor import GatewayController, Store, make_service, open_store
from zapwatch.channels import Channel
from zapwatch.config import GatewaySettings, Settings
from zapwatch.config.readers import fingerprint
from zapwatch.db import StateError
from zapwatch.gateways.base import GatewayError
from zapwatch.gateways.registry import make_gateway
from zapwatch.messages.log_tailer import ActivitySnapshot
from zapwatch.messages.source import open_source
from zapwatch.messages.webhook_log import MessageLogError

_POLL_SECONDS = 0.1
_STOP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Options:
    """How ``check`` was called."""

    dry_run: bool
    verbose: bool


class Check:
    """One run at one gateway. Prints nothing on a healthy day, unless it is verbose."""

    def __init__(
        self,
        settings: Settings,
        gateway: GatewaySettings,
        store: Store | None,
        options: Options,
    ) -> None:
        """Prepare; without a ``store`` nothing is changed anywhere."""
        self._settings = settings
        self._gateway = gateway
        self._options = options
        metrics = HookMetrics()
        self._service = (
            make_service(settings, gateway, store, metrics, stays=False) if store else None
        )
        self._client = (
            self._service.client
            if self._service
            else make_gateway(gateway, observe=metrics.of(gateway.name).observe_call)
        )
        # It is only asked of the channels that were listed just now.
        self._messages = open_source(settings, gateway)
        self.trouble = False
        self._repairs = False

    def run(self) -> None:
        """Check, and note ``trouble`` where something could not be read or a repair failed."""
        try:
            listed = self._client.list_channels()
        except GatewayError as error:
            self._explain(error)
            return
        channels = listed.channels
        self._say(f"{len(channels)} channels listed")
        for ignored in listed.ignored:
            self._say(f"{ignored}: ignored, as the settings say")
        view = self._read_messages([channel for channel in channels if channel.connected])
        wanted = self._wanted(channels, view)
        if self._service is None:
            call = self._client.reconnect_call
            for target in wanted:
                self._print(f"{target.channel}: {target.reason}; {call} would be called")
        elif wanted:
            self._repair(self._service, wanted)

    def stop(self) -> None:
        """Let what is still under way go back to where it can be taken up."""
        if self._service is not None and self._repairs:
            self._service.workers.stop(_STOP_SECONDS)

    def _read_messages(self, channels: Collection[Channel]) -> ActivitySnapshot | None:
        if self._gateway.message_log_error:
            self._complain(
                "read_log", self._gateway.message_log_error, "silent channels cannot be noticed"
            )
        if self._messages is None:
            return None
        try:
            return self._messages.find(channels)
        except MessageLogError as error:
            self._complain("read_log", str(error), "silent channels cannot be noticed")
            return None

    def _wanted(self, channels: Collection[Channel], view: ActivitySnapshot | None) -> list[Target]:
        wanted = [Target(c.id, RepairCause.DISCONNECTED) for c in channels if not c.connected]
        unheard: dict[str, str] = {}
        for channel in (c for c in channels if c.connected and view is not None):
            age = view.age(channel.key) if view else None
            threshold = self._gateway.silence_threshold(channel.id)
            if age is None:
                unheard[channel.key] = channel.id
                self._say(f"{channel.id}: connected, no message known")
            elif age > threshold:
                wanted.append(Target(channel.id, RepairCause.SILENT))
            else:
                self._say(f"{channel.id}: connected, last message {_hours(age)} ago")
        for target in wanted:
            self._say(f"{target.channel}: {target.reason}")
        return wanted + ([] if view is None else self._never_heard(unheard))

    def _never_heard(self, unheard: Mapping[str, str]) -> list[Target]:
        """Return those that have been so for as long as would be silence.

        A channel that was set up a moment ago has had no chance of a message yet.
        """
        if self._service is None:
            return []
        seconds = self._service.memory.note_unheard(unheard)
        return [
            Target(channel, RepairCause.NEVER_HEARD)
            for key, channel in unheard.items()
            if seconds[key] >= self._gateway.silence_threshold(channel)
        ]

    def _repair(self, service: GatewayController, wanted: list[Target]) -> None:
        verdicts = service.intake.accept([Alert(AlertStatus.FIRING, target) for target in wanted])
        waiting: dict[int, Target] = {}
        for target, verdict in zip(wanted, verdicts, strict=True):
            # Done already, if another hook was quick: then its outcome is there.
            repair_id = service.memory.latest_repair(target.key)
            if verdict is Disposition.COOLDOWN or repair_id is None:
                self._print(
                    f"{target.channel}: {target.reason}; it was repaired less than "
                    f"{self._settings.reconnect_cooldown_seconds:g} s ago and is left alone"
                )
            else:
                waiting[repair_id] = target
        self._repairs = True
        service.workers.start()
        while waiting:
            for repair_id in list(waiting):
                outcome = service.memory.outcome(repair_id)
                if outcome is not None:
                    target = waiting.pop(repair_id)
                    self._print(f"{target.channel}: {target.reason}; {outcome}")
                    self.trouble |= outcome in {Outcome.FAILED, Outcome.UNKNOWN_CHANNEL}
            time.sleep(_POLL_SECONDS if waiting else 0)

    def _explain(self, error: GatewayError) -> None:
        """Say why there is no list; verbosely, what helps to find the setting at fault."""
        self._complain("list", str(error), "no channel could be checked")
        parts = urlsplit(self._gateway.base_url)
        default = 443 if parts.scheme == "https" else 80
        port = (
            f"port {parts.port}"
            if parts.port
            else f"no port, so {default}: is :{self._client.usual_port} missing?"
        )
        for line in (
            f"URL: {self._gateway.base_url} ({port})",
            f"secret: {fingerprint(self._gateway.secret)}",
            f"came back: {error.detail}"
            + (f" (HTTP {error.http_status})" * bool(error.http_status)),
            f"most likely: {self._client.hints[error.reason]}",
            f"request id for the gateway's log: {error.request_id}",
        ):
            self._say(line)

    def _complain(self, action: str, detail: str, consequence: str) -> None:
        self.trouble = True
        print(f"check: {self._named(detail)}; {consequence}", file=sys.stderr)  # noqa: T201
        if self._service is not None:
            self._service.events.write(action=action, outcome="failed", detail=detail)

    def _say(self, line: str) -> None:
        if self._options.verbose:
            self._print(line)

    def _print(self, line: str) -> None:
        print(self._named(line), flush=True)  # noqa: T201 - the operator, or cron's mail, reads it

    def _named(self, line: str) -> str:
        return f"{self._gateway.name}: {line}" if len(self._settings.gateways) > 1 else line


def run_check(settings: Settings, options: Options) -> int:
    """Check all gateways at once, so that none waits for one that hangs.

    Returns the exit code: 0 where all is well or every repair was accepted, else 1. Raises
    SettingsError.
    """
    # First, so that a state or log that cannot be opened shows before anything is called.
    store = None if options.dry_run else open_store(settings)
    checks = [Check(settings, gateway, store, options) for gateway in settings.gateways]
    errors: list[StateError] = []
    threads = [threading.Thread(target=_run, args=(check, errors), daemon=True) for check in checks]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for check in checks:
            check.stop()
        if store is not None:
            store.database.close()
    for error in errors[:1]:
        print(f"check: HOOK_STATE_URL: {error}", file=sys.stderr)  # noqa: T201
    return 1 if errors or any(check.trouble for check in checks) else 0


def _run(check: Check, errors: list[StateError]) -> None:
    try:
        check.run()
    except StateError as error:
        errors.append(error)
    except Exception:
        check.trouble = True  # unforeseen, but then nobody knows that all is well
        raise


def _hours(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
