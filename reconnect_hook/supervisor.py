"""Builds each gateway's parts from the settings, and restarts them when settings change."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from reconnect_hook.alerts import AlertWriter, Outage
from reconnect_hook.decision import Policy
from reconnect_hook.delivery import DeliveryCheck
from reconnect_hook.echo import ProbeContext
from reconnect_hook.event_log import EventLog, EventLogError
from reconnect_hook.history import RepairHistory
from reconnect_hook.message_audit import AuditRepository, MessageAuditor, wish_after
from reconnect_hook.message_replay import Consumer, MessageReplayer, ReplayRepository
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.models import Action, AskedBy, Backoff
from reconnect_hook.operator_actions import OperatorActions
from reconnect_hook.probe_limits import ProbeRepository
from reconnect_hook.reconciler import Beside, GatewayReconciler, Scheduler
from reconnect_hook.recorder import Recorder
from reconnect_hook.repository import Lead, add_gateways
from reconnect_hook.scan_links import ScanLinks
from reconnect_hook.schema import open_state
from reconnect_hook.workers import Workers
from zapwatch.channels import Channel
from zapwatch.config import GatewaySettings, Settings, SettingsError
from zapwatch.config.readers import ReplayMode
from zapwatch.db import Database, StateError
from zapwatch.gateways.registry import make_gateway
from zapwatch.messages.message import MessageLogError
from zapwatch.messages.source import open_source


@dataclass(frozen=True, slots=True)
class Store:
    """The state and event log that all gateways share."""

    database: Database
    events: EventLog


def open_store(settings: Settings) -> Store:
    """Open the state and the event log; raise SettingsError if either fails."""
    try:
        events = EventLog(settings.hook_log_file)
    except EventLogError as error:
        raise SettingsError(f"HOOK_LOG_FILE cannot be written: {error}") from None
    try:
        return Store(open_state(settings.hook_state_url), events)
    except StateError as error:
        raise SettingsError(f"HOOK_STATE_URL cannot be opened: {error}") from None


class GatewayController:
    """One gateway's parts, wired but not started."""

    def __init__(
        self,
        settings: Settings,
        gateway: GatewaySettings,
        store: Store,
        metrics: HookMetrics,
        scheduler: Scheduler,
        *,
        asked_by: AskedBy = AskedBy.ALERTMANAGER,
    ) -> None:
        """``asked_by`` is the source of the alerts that it stores."""
        name, database, clock = gateway.name, store.database, store.database.clock
        self.gateway = gateway
        # With a single gateway, log lines omit its name.
        several = len(settings.gateways) > 1
        self.events = store.events.with_pairs(gateway=name) if several else store.events
        self.client = make_gateway(gateway, observe=metrics.calls.of(name))
        backoff = Backoff(settings.reconnect_cooldown_seconds)
        self.history = RepairHistory(database, name, backoff)
        has_echoes = gateway.messages.has_echoes
        echoes = open_source(settings, gateway, self._listed) if has_echoes else None
        messages = open_source(settings, gateway, self._listed)
        self.sources = [source for source in (echoes, messages) if source is not None]
        compares = self.client.lists_messages
        self.probing = ProbeContext(
            self.client,
            echoes,
            ProbeRepository(database, name, gateway.probe),
            gateway.probe,
            delivery=DeliveryCheck(self.client, echoes, clock) if compares and echoes else None,
        )
        self.writer = AlertWriter(database, name, backoff, scheduler.wake, asked_by)
        self.workers = Workers(
            self.client,
            self.probing,
            messages,
            scheduler.notify,
            clock,
            capacity=settings.reconnect_workers,
        )
        url, token = gateway.replay_url, gateway.replay_token
        self.replayer = MessageReplayer(
            ReplayRepository(database, name),
            self.client,
            echoes,
            Consumer(url, token, self.client.event_headers) if url else None,
            self.events,
            partial(metrics.count_replay, name),
        )
        replays = gateway.replay is ReplayMode.AUTO and not self.replayer.why_not
        audits = AuditRepository(database, name, replays=replays)
        metrics.watch(name, self.history, audits)
        count, mode = partial(metrics.count_audit, name), settings.message_audit
        self.auditor = MessageAuditor(
            audits, self.client, echoes, self.events, count, mode, clock=clock
        )
        policy = Policy(
            backoff,
            settings.reconnect_verify_seconds,
            gateway.silence_threshold,
            Action(self.client.reconnect_call),
            allow_restart=gateway.allow_restart,
            keeps_channel=self.client.keeps_channel,
            starting_hint=self.client.starting_hint,
            lists_qr=self.client.lists_qr,
            probe_kind=self.probing.kind_of,
            probe_after=gateway.probe.after_minutes * 60,
            probe_pause=gateway.probe.pause_minutes * 60,
            audits=self.auditor.follows_outages,
        )
        self.reconciler = GatewayReconciler(
            name,
            Lead(database, name),
            Recorder(name, policy, self.events, self.workers, clock),
            self.workers,
            metrics,
            clock=clock,
            # A check may end during an audit or delivery, whose claim would then block the next.
            beside=None if asked_by is AskedBy.CHECK else Beside(self.auditor, self.replayer),
            is_counted=gateway.requests_per_month is not None,
        )
        self.actions = OperatorActions(database, name, self.writer, scheduler.wake)

    def _listed(self) -> Collection[Channel]:
        if self.workers.channels is None:
            raise MessageLogError("the channel list could not be read")
        return self.workers.channels.values()

    def close(self) -> None:
        """Close the connections to the gateway and to its message sources."""
        self.client.close()
        for source in self.sources:
            source.close()

    def want_audits(self, outages: Iterable[Outage]) -> None:
        """Queue audits after outages that have ended; raise StateError."""
        if self.auditor.follows_outages:
            threshold = self.gateway.silence_threshold
            wishes = [
                wish_after(one.channel, one.noticed_at, threshold if one.silent else None)
                for one in outages
            ]
            self.auditor.repository.want(wishes)


RELOAD_SECONDS = 5.0
"""Time for calls in flight when their gateway was changed or removed."""


class HookSupervisor:
    """Runs the parts of each gateway, and applies changed settings; thread-safe."""

    def __init__(self, settings: Settings, store: Store, metrics: HookMetrics) -> None:
        """Start nothing; apply_config() does."""
        self.scan_links = ScanLinks(store.database)
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._lock = threading.Lock()
        self.controllers: Mapping[str, GatewayController] = {}
        """The current gateways by name: an immutable snapshot, replaced as a whole."""
        self._scheduler = Scheduler(store.database)

    def events_of(self, gateway: str) -> EventLog:
        """Return a gateway's event log, also after its removal."""
        known = self.controllers.get(gateway)
        return known.events if known else self._store.events.with_pairs(gateway=gateway)

    def apply_config(self, gateways: Sequence[GatewaySettings]) -> None:
        """Replace the set of gateways; unchanged ones keep running.

        A changed gateway accepts alerts throughout: they wait in the state until its old calls in
        flight have ended. Raises StateError.
        """
        with self._lock:
            before = self.controllers
            settings = replace(self._settings, gateways=tuple(gateways))
            wanted = {gateway.name: gateway for gateway in gateways}
            stay = {name: one for name, one in before.items() if one.gateway == wanted.get(name)}
            made = {
                name: GatewayController(
                    settings, gateway, self._store, self._metrics, self._scheduler
                )
                for name, gateway in wanted.items()
                if name not in stay
            }
            # Before any change, since the state may fail.
            try:
                add_gateways(self._store.database, made)
                for one in made.values():
                    one.auditor.plan()
            except StateError:
                for one in made.values():
                    one.close()
                for name in made.keys() - before.keys():
                    self._metrics.forget(name)
                raise
            self.controllers = {name: (stay | made)[name] for name in wanted}
            old = [one for name, one in before.items() if name not in stay]
            self._scheduler.remove([one.reconciler for one in old], RELOAD_SECONDS)
            for one in old:
                one.close()
            self._scheduler.add(one.reconciler for one in made.values())
            if not self._scheduler.is_alive:
                self._scheduler.start()
            for name in before.keys() - self.controllers.keys():
                self._metrics.forget(name)

    def stop(self, seconds: float) -> None:
        """Stop; the next leader resumes work that does not end within ``seconds``."""
        self._scheduler.stop(seconds)
        for one in self.controllers.values():
            one.close()
