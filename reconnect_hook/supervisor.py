"""Builds each gateway's parts from the settings, and restarts them when settings change."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from reconnect_hook.alerts import AlertWriter, Outage
from reconnect_hook.decision import Policy
from reconnect_hook.delivery import DeliveryCheck
from reconnect_hook.echo import ProbeContext
from reconnect_hook.event_log import EventLog, EventLogError
from reconnect_hook.history import RepairHistory
from reconnect_hook.message_audit import AuditRepository, AuditResult, MessageAuditor, wish_after
from reconnect_hook.message_replay import Consumer, MessageReplayer, ReplayRepository
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.models import Action, AskedBy, Backoff
from reconnect_hook.operator_actions import OperatorActions
from reconnect_hook.probe_limits import ProbeRepository
from reconnect_hook.reconciler import Beside, GatewayReconciler, Scheduler, add_gateways
from reconnect_hook.recorder import Recorder
from reconnect_hook.repository import Lead
from reconnect_hook.scan_links import ScanLinks
from reconnect_hook.schema import open_state
from reconnect_hook.workers import Workers
from zapwatch.channels import Channel
from zapwatch.config import GatewaySettings, Settings, SettingsError
from zapwatch.config.readers import AuditMode
from zapwatch.db import Database, StateError
from zapwatch.gateways.base import Gateway
from zapwatch.gateways.registry import make_gateway
from zapwatch.messages.message import MessageLogError
from zapwatch.messages.source import MessageSource, open_source


@dataclass(frozen=True, slots=True)
class GatewayController:
    """One gateway's parts, wired but not started."""

    gateway: GatewaySettings
    client: Gateway
    writer: AlertWriter
    workers: Workers
    reconciler: GatewayReconciler
    probing: ProbeContext
    events: EventLog
    history: RepairHistory
    actions: OperatorActions
    auditor: MessageAuditor
    replayer: MessageReplayer
    sources: tuple[MessageSource | None, ...] = ()

    def close(self) -> None:
        """Close the connections to the gateway and to its message sources."""
        self.client.close()
        for source in self.sources:
            if source is not None:
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


def make_controller(
    settings: Settings,
    gateway: GatewaySettings,
    store: Store,
    metrics: HookMetrics,
    scheduler: Scheduler,
    *,
    asked_by: AskedBy = AskedBy.ALERTMANAGER,
) -> GatewayController:
    """Build a gateway's parts; ``asked_by`` is the source of the alerts it stores."""
    name, database = gateway.name, store.database
    mode = settings.message_audit
    # With a single gateway, log lines omit its name.
    events = store.events.with_pairs(gateway=name) if len(settings.gateways) > 1 else store.events
    counts = metrics.of(name)
    client = make_gateway(gateway, observe=counts.observe_call)
    backoff = Backoff(settings.reconnect_cooldown_seconds)
    history = RepairHistory(database, name, backoff)
    metrics.watch(name, history)

    def listed() -> Collection[Channel]:
        if workers.channels is None:
            raise MessageLogError("the channel list could not be read")
        return workers.channels.values()

    echoes = open_source(settings, gateway, listed) if gateway.messages.has_echoes else None
    compares = client.lists_messages and echoes is not None
    probing = ProbeContext(
        client,
        echoes,
        ProbeRepository(database, name, gateway.probe),
        gateway.probe,
        delivery=DeliveryCheck(client, echoes, database.clock) if compares and echoes else None,
    )
    writer = AlertWriter(database, name, backoff, scheduler.wake, asked_by)

    policy = Policy(
        backoff,
        settings.reconnect_verify_seconds,
        gateway.silence_threshold,
        Action(client.reconnect_call),
        allow_restart=gateway.allow_restart,
        keeps_channel=client.keeps_channel,
        starting_hint=client.starting_hint,
        lists_qr=client.lists_qr,
        probe_kind=probing.kind_of,
        probe_after=gateway.probe.after_minutes * 60,
        probe_pause=gateway.probe.pause_minutes * 60,
        audits=mode is not AuditMode.OFF and compares,
    )
    clock = database.clock
    messages = open_source(settings, gateway, listed)
    workers = Workers(client, probing, messages, scheduler.notify, clock)
    url, token = gateway.replay_url, gateway.replay_token
    replayer = MessageReplayer(
        ReplayRepository(database, name),
        client,
        echoes,
        Consumer(url, token, client.event_headers) if url else None,
        events,
        counts.count_replay,
        gateway.replay,
    )

    def audited(channel: str, result: AuditResult) -> None:
        counts.count_audit(channel, result)
        if result is AuditResult.MISSED:
            replayer.want_after_audit(channel)

    auditor = MessageAuditor(
        AuditRepository(database, name),
        client,
        echoes,
        events,
        audited,
        mode,
        clock=clock,
    )
    metrics.watch_audits(name, auditor.repository)
    reconciler = GatewayReconciler(
        name,
        Lead(database, name),
        Recorder(name, policy, events, clock),
        workers,
        counts,
        most_calls=settings.reconnect_workers,
        clock=clock,
        # A check may end during an audit or delivery, whose claim would then block the next.
        beside=None if asked_by is AskedBy.CHECK else Beside(auditor, replayer),
    )
    actions = OperatorActions(database, name, writer, scheduler.wake)
    return GatewayController(
        gateway,
        client,
        writer,
        workers,
        reconciler,
        probing,
        events,
        history,
        actions,
        auditor,
        replayer,
        (echoes, messages),
    )


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
        self._controllers: Mapping[str, GatewayController] = {}
        self._scheduler = Scheduler(store.database)

    @property
    def controllers(self) -> Mapping[str, GatewayController]:
        """The current gateways by name: an immutable snapshot, replaced as a whole."""
        return self._controllers

    def events_of(self, gateway: str) -> EventLog:
        """Return a gateway's event log, also after its removal."""
        known = self._controllers.get(gateway)
        return known.events if known else self._store.events.with_pairs(gateway=gateway)

    @property
    def is_alive(self) -> bool:
        """Whether the scheduler's thread runs."""
        return self._scheduler.is_alive

    def apply_config(self, gateways: Sequence[GatewaySettings]) -> None:
        """Replace the set of gateways; unchanged ones keep running.

        A changed gateway accepts alerts throughout: they wait in the state until its old calls in
        flight have ended. Raises StateError.
        """
        with self._lock:
            before = self._controllers
            settings = replace(self._settings, gateways=tuple(gateways))
            stays = {
                gateway.name
                for gateway in gateways
                if gateway.name in before and before[gateway.name].gateway == gateway
            }
            made = {
                gateway.name: make_controller(
                    settings, gateway, self._store, self._metrics, self._scheduler
                )
                for gateway in gateways
                if gateway.name not in stays
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
            self._controllers = {
                gateway.name: made.get(gateway.name) or before[gateway.name] for gateway in gateways
            }
            old = [one for name, one in before.items() if name not in stays]
            self._scheduler.remove([one.reconciler for one in old], RELOAD_SECONDS)
            for one in old:
                one.close()
            self._scheduler.add(one.reconciler for one in made.values())
            if not self._scheduler.is_alive:
                self._scheduler.start()
            for name in before.keys() - self._controllers.keys():
                self._metrics.forget(name)

    def stop(self, seconds: float) -> None:
        """Stop; the next leader resumes work that does not end within ``seconds``."""
        self._scheduler.stop(seconds)
        for one in self._controllers.values():
            one.close()
