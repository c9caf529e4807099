"""Puts together from the settings what ``serve`` and ``check`` work with at one gateway."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from reconnect_hook.event_log import EventLog, EventLogError
from reconnect_hook.metrics import Metrics
from reconnect_hook.probes.ear import open_ear
from reconnect_hook.probes.means import ProbeMeans
from reconnect_hook.probes.prober import Prober
from reconnect_hook.repairs.asking import LOOK_PAUSE
from reconnect_hook.repairs.channel_lists import ChannelLists
from reconnect_hook.repairs.means import Means
from reconnect_hook.repairs.workers import Workers
from reconnect_hook.state.backlog import Backlog
from reconnect_hook.state.database import Database, StateError
from reconnect_hook.state.desk import Desk
from reconnect_hook.state.episodes import Pauses
from reconnect_hook.state.history import History
from reconnect_hook.state.intake import Intake
from reconnect_hook.state.jobs import Jobs
from reconnect_hook.state.memory import Memory
from reconnect_hook.state.probes import ProbeBook
from whatsapp.channels import Channel
from whatsapp.gateways.gateway import Gateway, GatewayError
from whatsapp.gateways.registry import make_gateway
from whatsapp.message_log import MessageLogError
from whatsapp.message_sources import open_messages
from whatsapp.settings import GatewaySettings, Settings, SettingsError


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of the hook that are one gateway's alone, wired together but not started."""

    gateway: GatewaySettings
    client: Gateway
    intake: Intake
    memory: Memory
    workers: Workers
    prober: Prober
    probing: ProbeMeans
    events: EventLog
    history: History
    desk: Desk


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
        return Store(Database(settings.hook_state_url), events)
    except StateError as error:
        raise SettingsError(f"HOOK_STATE_URL cannot be opened: {error}") from None


def make_service(
    settings: Settings,
    gateway: GatewaySettings,
    store: Store,
    metrics: Metrics,
    *,
    stays: bool = True,
) -> Service:
    """Put a gateway's parts together.

    A service that does not stay leaves nothing in the queue for later: nobody would come for it.
    """
    name, database = gateway.name, store.database
    # The log of one gateway need not say which.
    events = store.events.with_pairs(gateway=name) if len(settings.gateways) > 1 else store.events
    counts = metrics.of(name)
    client = make_gateway(gateway, observe=counts.observe_call)
    pauses = Pauses(settings.reconnect_cooldown_seconds)
    memory = Memory(database, name)
    book = ProbeBook(database, name, gateway.probe)
    metrics.watch(name, memory, book)
    lists = ChannelLists(client)
    probing = ProbeMeans(client, open_ear(settings, gateway), book, gateway.probe)
    means = Means(
        client=client,
        lists=lists,
        messages=open_messages(settings, gateway, partial(_listed, lists)),
        silence_threshold=gateway.silence_threshold,
        verify_seconds=settings.reconnect_verify_seconds,
        allow_restart=gateway.allow_restart,
        probing=probing,
        count_probe=counts.count_probe,
    )
    intake = Intake(database, name, pauses, keep=stays)
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

    return Service(
        gateway=gateway,
        client=client,
        intake=intake,
        memory=memory,
        workers=workers,
        prober=prober,
        probing=probing,
        events=events,
        history=History(database, name),
        desk=Desk(database, name, intake, wake),
    )


def _listed(lists: ChannelLists) -> Collection[Channel]:
    """Return a list that is a few seconds old at most, and that all repairs share."""
    try:
        return lists.of_this_round(time.monotonic() - LOOK_PAUSE).values()
    except GatewayError as error:
        raise MessageLogError(str(error)) from None
