"""All gateways that are being watched, as the settings name them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial

from exporter.collector import ExporterCollector, ExporterMetrics, make_registry
from exporter.event_buffer import Post
from exporter.event_receiver import EventResult
from exporter.pollers import GatewayPoller, LogPoller, Poller
from exporter.silence.learner import Learner
from exporter.silence.model import Thresholds, bounds_of
from exporter.snapshot import StateStore, waiting_for
from zapwatch.channels import Channel
from zapwatch.clock import Clock
from zapwatch.config import GatewaySettings, MessageSourceKind, Settings, SilenceMode
from zapwatch.gateways.registry import adapter_of, make_gateway
from zapwatch.messages.source import open_source
from zapwatch.messages.webhook_log import MessageLogError
from zapwatch.metrics import MetricsPage, ReloadMetrics
from zapwatch.server import dead_threads


class GatewayMonitor:
    """Everything that is one gateway's alone: no other waits for it.

    With the same message log as another it has a tail of its own all the same: a log that is slow
    or locked for one reader is nobody else's trouble, and each can end without the other.
    """

    def __init__(
        self,
        settings: Settings,
        gateway: GatewaySettings,
        post: Post,
        log: logging.Logger,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Prepare to watch, and say in ``log`` what becomes of it."""
        self.gateway = gateway
        self.store = StateStore()
        bounds = bounds_of(settings)
        messages = open_source(settings, gateway, self._listed, post.messages, clock=clock)
        self._with_log = messages is not None
        thresholds = Thresholds(gateway, bounds, can_query=adapter_of(gateway).can_query)
        self.metrics = ExporterMetrics(
            self.store,
            gateway.name,
            thresholds.of,
            thresholds.suspicion,
            with_log=self._with_log,
            with_events=gateway.messages is MessageSourceKind.EVENTS,
        )
        self._pollers: list[Poller] = []
        self._learner: Learner | None = None
        pause = settings.exporter_poll_seconds
        client = make_gateway(gateway, observe=self.metrics.observe_call, polls=True)
        if messages is None:
            self._pollers = [GatewayPoller(client, self.store, pause, log=log, clock=clock)]
            return
        observe = self.metrics.log_seconds.observe
        of_log = LogPoller(messages, self.store, pause, observe, log, clock=clock)
        # The first look back for a channel begins when it is first listed, not a pause later.
        of_list = GatewayPoller(client, self.store, pause, of_log.hurry, log, clock=clock)
        self._pollers = [of_list, of_log]
        if gateway.silence_mode is SilenceMode.ADAPTIVE:
            # On connections of its own, so that no poll waits for it.
            history = open_source(settings, gateway, self._listed, clock=clock)
            if history is not None:
                self._learner = Learner(gateway, bounds, history, self.store, log, clock=clock)

    def _listed(self) -> Collection[Channel]:
        state = self.store.snapshot.gateway
        if state is None or not state.up:
            raise MessageLogError("the gateway does not give its channel list")
        return state.channels

    def start(self) -> None:
        """Begin, in threads that do not keep the program from ending."""
        for poller in self._pollers:
            poller.start()
        if self._learner is not None:
            self._learner.start()

    def stop(self) -> None:
        """End, without waiting for what is under way."""
        for poller in self._pollers:
            poller.stop()
        if self._learner is not None:
            self._learner.stop()

    def hurry(self) -> None:
        """Ask for the list as soon as its pace allows."""
        self._pollers[0].hurry()

    @property
    def dead(self) -> list[str]:
        """The sources whose thread has ended."""
        return [poller.source for poller in self._pollers if poller.is_dead]

    @property
    def waiting(self) -> list[str]:
        """The sources that have not been asked yet."""
        return waiting_for(self.store.snapshot, with_log=self._with_log)


class Supervisor:
    """Watches gateways, and others when the settings are read again; for any number of threads."""

    def __init__(self, settings: Settings, post: Post, *, clock: Clock | None = None) -> None:
        """Watch nothing yet."""
        self._clock = clock
        self._collector = ExporterCollector()
        registry = make_registry(self._collector, lambda: self.dead)
        self.reload_metrics = ReloadMetrics(registry, "whatsapp_exporter")
        self.page = MetricsPage(registry, clock=clock)
        self._post = post
        self._settings = settings
        self._lock = threading.Lock()
        self._watched: dict[str, GatewayMonitor] = {}
        self._warming_up: dict[str, GatewayMonitor] = {}

    def apply_config(self, gateways: Sequence[GatewaySettings]) -> None:
        """Watch these gateways and no others; what has not changed goes on undisturbed.

        One that has changed is watched as before until each of its sources was asked once by the
        new settings: its metrics have no gap in which alerts would end. Raises SettingsError where
        one of them cannot be watched; then nothing has changed.
        """
        wanted = {gateway.name: gateway for gateway in gateways}
        with self._lock:
            self._post.follow(gateways)
            for name in self._watched.keys() - wanted.keys():
                self._watched.pop(name).stop()
            for name, warming in list(self._warming_up.items()):
                if wanted.get(name) != warming.gateway:
                    self._warming_up.pop(name).stop()
            fresh = [gateway for gateway in gateways if not self._is_watched(gateway)]
            monitors = [self._make(gateway, several=len(gateways) > 1) for gateway in fresh]
            self._watched = {name: self._watched[name] for name in wanted if name in self._watched}
            self._show()
        for monitor in monitors:
            monitor.start()
        # Nothing of a gateway that was removed is handed out once the reload is reported as done.
        self.page.refresh()

    def _is_watched(self, gateway: GatewaySettings) -> bool:
        present = self._warming_up.get(gateway.name) or self._watched.get(gateway.name)
        return present is not None and present.gateway == gateway

    def _make(self, gateway: GatewaySettings, *, several: bool) -> GatewayMonitor:
        log = logging.getLogger(f"exporter.{gateway.name}" if several else "exporter")
        monitor = GatewayMonitor(self._settings, gateway, self._post, log, clock=self._clock)
        monitor.store.subscribe(self.page.invalidate)
        if gateway.name in self._watched:
            self._warming_up[gateway.name] = monitor
            monitor.store.subscribe(partial(self._swap_in, monitor))
        else:
            self._watched[gateway.name] = monitor
        return monitor

    def _swap_in(self, warming: GatewayMonitor) -> None:
        """Show a gateway by its new settings, as soon as there is something to show."""
        name = warming.gateway.name
        if warming.waiting:
            return
        with self._lock:
            if self._warming_up.get(name) is warming:
                del self._warming_up[name]
                self._watched[name].stop()
                self._watched[name] = warming
                self._show()

    def count_event(self, gateway: str, result: EventResult) -> None:
        """Count an event that a gateway posted."""
        watched = self._watched.get(gateway)
        if watched is not None and watched.gateway.messages is MessageSourceKind.EVENTS:
            watched.metrics.count_event(result)

    def hurry(self, gateway: str) -> None:
        """Ask for a gateway's list as soon as its pace allows: a session's state may be another."""
        watched = self._watched.get(gateway)
        if watched is not None:
            watched.hurry()

    def _show(self) -> None:
        self._collector.show(monitor.metrics for monitor in self._watched.values())
        self.page.invalidate()

    @property
    def waiting(self) -> list[str]:
        """The sources that have not been asked yet."""
        return self._named(lambda monitor: monitor.waiting)

    @property
    def dead(self) -> list[str]:
        """The sources that are no longer polled, and the other threads that have died."""
        return [*self._named(lambda monitor: monitor.dead), *dead_threads()]

    def _named(self, sources: Callable[[GatewayMonitor], list[str]]) -> list[str]:
        watched = self._watched
        several = len(watched) > 1
        return [
            f"{source} of {name}" if several else source
            for name, one in watched.items()
            for source in sources(one)
        ]
