"""Puts together from the settings what both ``serve`` and ``check`` work with."""

from __future__ import annotations

from dataclasses import dataclass

from reconnect_hook.event_log import EventLog, EventLogError
from reconnect_hook.metrics import Metrics
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
from whatsapp.gateways.gateway import Gateway
from whatsapp.gateways.wrapper import WrapperGateway
from whatsapp.message_log import MessageLog
from whatsapp.settings import Settings, SettingsError


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one hook, wired together but not started."""

    intake: Intake
    memory: Memory
    workers: Workers
    metrics: Metrics
    events: EventLog
    history: History
    desk: Desk


def make_client(settings: Settings, metrics: Metrics) -> Gateway:
    """Return the client of the gateway that the settings name."""
    return WrapperGateway(
        settings.gateway_base_url,
        settings.gateway_secret,
        list_timeout=settings.gateway_timeout,
        qr_timeout=settings.gateway_qr_timeout,
        connections=settings.reconnect_workers + 1,
        ca_file=settings.gateway_ca_file,
        observe=metrics.gateway_calls.observe,
    )


def make_service(
    settings: Settings,
    client: Gateway,
    log: MessageLog | None,
    metrics: Metrics,
    *,
    stays: bool = True,
) -> Service:
    """Open the state and the log file; raise SettingsError where one cannot be opened.

    A service that does not stay leaves nothing in the queue for later: nobody would come for it.
    """
    try:
        events = EventLog(settings.hook_log_file)
    except EventLogError as error:
        raise SettingsError(f"HOOK_LOG_FILE cannot be written: {error}") from None
    try:
        database = Database(settings.hook_state_url)
    except StateError as error:
        raise SettingsError(f"HOOK_STATE_URL cannot be opened: {error}") from None
    gateway = settings.gateway_name
    pauses = Pauses(settings.reconnect_cooldown_seconds)
    memory = Memory(database, gateway)
    metrics.watch(memory)
    means = Means(
        client=client,
        lists=ChannelLists(client),
        log=log,
        silence_threshold=settings.silence_threshold,
        verify_seconds=settings.reconnect_verify_seconds,
        allow_restart=settings.reconnect_allow_restart,
    )
    intake = Intake(database, gateway, pauses, keep=stays)
    workers = Workers(
        Jobs(database, gateway, pauses, retry=stays),
        Backlog(database, gateway, pauses),
        memory,
        means,
        events,
        metrics,
        count=settings.reconnect_workers,
    )
    return Service(
        intake=intake,
        memory=memory,
        workers=workers,
        metrics=metrics,
        events=events,
        history=History(database, gateway),
        desk=Desk(database, gateway, intake, workers.wake),
    )
