"""Puts together from the settings what ``serve`` and ``check`` work with at one gateway."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from reconnect_hook.alert_writer import AlertWriter
from reconnect_hook.audit_log import EventLog, EventLogError
from reconnect_hook.backoff import Backoff
from reconnect_hook.channel_list_cache import ChannelListCache
from reconnect_hook.context import ProbeContext, RepairContext
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.migrate import open_state
from reconnect_hook.probe_limits import ProbeRepository
from reconnect_hook.probe_worker import Prober
from reconnect_hook.queue import Backlog, Jobs
from reconnect_hook.repair import LOOK_PAUSE
from reconnect_hook.repair_worker import Workers
from reconnect_hook.repository import ChannelRepository, OperatorActions, RepairHistory
from zapwatch.channels import Channel
from zapwatch.config import GatewaySettings, Settings, SettingsError
from zapwatch.db import Database, StateError
from zapwatch.gateways.base import Gateway, GatewayError
from zapwatch.gateways.registry import make_gateway
from zapwatch.messages.source import open_source
from zapwatch.messages.webhook_log import MessageLogError


@dataclass(frozen=True, slots=True)
class GatewayController:
    """The parts of the hook that are one gateway's alone, wired together but not started."""

    gateway: GatewaySettings
    client: Gateway
    intake: AlertWriter
    memory: ChannelRepository
    workers: Workers
    prober: Prober
    probing: ProbeContext
    events: EventLog
    history: RepairHistory
    desk: OperatorActions


@dataclass(frozen=True, slots=True)
class Store:
    """What all gateways share."""

    database: Database
    events: EventLog


def open_store(settings: Settings) -> Store:
    """Open the state and the log file; raise SettingsError where one cannot be opened."""
    try:
        events = EventLog(settings.hook_log_file)
    except EventLogError as error:
        raise SettingsError(f"HOOK_LOG_FILE cannot be written: {error}") from None
    try:
        return Store(open_state(settings.hook_state_url), events)
    except StateError as error:
        raise SettingsError(f"HOOK_STATE_URL cannot be opened: {error}") from None


def make_service(
    settings: Settings,
    gateway: GatewaySettings,
    store: Store,
    metrics: HookMetrics,
    *,
    stays: bool = True,
) -> GatewayController:
    """Put a gateway's parts together.

    A service that does not stay leaves nothing in the queue for later: nobody would come for it.
    """
    name, database = gateway.name, store.database
    # The log of one gateway need not say which.
    events = store.events.with_pairs(gateway=name) if len(settings.gateways) > 1 else store.events
    counts = metrics.of(name)
    client = make_gateway(gateway, observe=counts.observe_call)
    pauses = Backoff(settings.reconnect_cooldown_seconds)
    memory = ChannelRepository(database, name)
    book = ProbeRepository(database, name, gateway.probe)
    metrics.watch(name, memory, book)
    lists = ChannelListCache(client)
    listed = partial(_listed, lists)
    echoes = open_source(settings, gateway, listed) if gateway.messages.has_echoes else None
    probing = ProbeContext(client, echoes, book, gateway.probe)
    means = RepairContext(
        client=client,
        lists=lists,
        messages=open_source(settings, gateway, listed),
        silence_threshold=gateway.silence_threshold,
        verify_seconds=settings.reconnect_verify_seconds,
        allow_restart=gateway.allow_restart,
        probing=probing,
        count_probe=counts.count_probe,
    )
    intake = AlertWriter(database, name, pauses, keep=stays)
    workers = Workers(
        Jobs(database, name, pauses, retry=stays),
        Backlog(database, name, pauses),
        memory,
        means,
        events,
        counts,
        count=settings.reconnect_workers,
    )
    prober = Prober(
        Jobs(database, name, pauses, only_probes=True),
        lists,
        probing,
        intake,
        workers.wake,
        events,
        counts,
        count=settings.reconnect_workers,
    )

    def wake() -> None:
        workers.wake()
        prober.wake()

    return GatewayController(
        gateway=gateway,
        client=client,
        intake=intake,
        memory=memory,
        workers=workers,
        prober=prober,
        probing=probing,
        events=events,
        history=RepairHistory(database, name),
        desk=OperatorActions(database, name, intake, wake),
    )


def _listed(lists: ChannelListCache) -> Collection[Channel]:
    """Return a list that is a few seconds old at most, and that all repairs share."""
    try:
        return lists.fresh(time.monotonic() - LOOK_PAUSE).values()
    except GatewayError as error:
        raise MessageLogError(str(error)) from None


RELOAD_SECONDS = 5.0
"""For a repair under way to end, when its gateway has changed or gone; then it is put back."""


class HookSupervisor:
    """Repairs at gateways, and at others when the settings are read again; for all threads."""

    def __init__(self, settings: Settings, store: Store, metrics: HookMetrics) -> None:
        """Repair nothing yet."""
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._lock = threading.Lock()
        self._services: Mapping[str, GatewayController] = {}

    @property
    def services(self) -> Mapping[str, GatewayController]:
        """The present gateways by name; never changed, but replaced as a whole."""
        return self._services

    def follow(self, gateways: Sequence[GatewaySettings]) -> None:
        """Repair at these gateways and no others; what has not changed goes on undisturbed.

        Alerts of one that has changed are taken at any moment: they wait in the queue until the
        workers of before have put down what they do.
        """
        with self._lock:
            before = self._services
            settings = replace(self._settings, gateways=tuple(gateways))
            stays = {
                gateway.name
                for gateway in gateways
                if gateway.name in before and before[gateway.name].gateway == gateway
            }
            made = {
                gateway.name: make_service(settings, gateway, self._store, self._metrics)
                for gateway in gateways
                if gateway.name not in stays
            }
            self._services = {
                gateway.name: made.get(gateway.name) or before[gateway.name] for gateway in gateways
            }
            old = [service for name, service in before.items() if name not in stays]
            _stop(old, RELOAD_SECONDS)
            for service in made.values():
                service.workers.start()
                service.prober.start()
            for name in before.keys() - self._services.keys():
                self._metrics.forget(name)

    def stop(self, seconds: float) -> None:
        """End; what cannot end in ``seconds`` goes back into the queue."""
        _stop(self._services.values(), seconds)


def _stop(services: Iterable[GatewayController], seconds: float) -> None:
    """Stop all at once, so that none waits for another."""
    threads = [
        threading.Thread(target=_end, args=(service, seconds), daemon=True) for service in services
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _end(service: GatewayController, seconds: float) -> None:
    # Both at once.
    stopping = threading.Thread(target=service.prober.stop, args=(seconds,), daemon=True)
    stopping.start()
    service.workers.stop(seconds)
    stopping.join()
    service.client.close()
