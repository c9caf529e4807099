"""The supervisor: one monitor for each gateway in the settings."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence
from functools import partial

from exporter.collector import ExporterCollector, ExporterMetrics, make_registry
from exporter.event_buffer import Post
from exporter.pollers import GatewayPoller, LogPoller, Poller, StateStore, waiting_for
from exporter.silence.learner import Learner
from exporter.silence.model import Thresholds, bounds_of
from zapwatch.channels import Channel
from zapwatch.config import GatewaySettings, MessageSourceKind, Settings, SilenceMode
from zapwatch.gateways.registry import adapter_of, make_gateway
from zapwatch.messages.message import MessageLogError
from zapwatch.messages.source import open_source
from zapwatch.metrics import MetricsPage, ReloadMetrics
from zapwatch.server import start_thread


class GatewayMonitor:
    """One gateway's pollers, learner and metrics; gateways never wait for each other.

    Gateways that share a message log have separate tails: a log that is slow or locked for one
    reader does not delay the others, and each monitor can stop alone.
    """

    def __init__(
        self,
        settings: Settings,
        gateway: GatewaySettings,
        post: Post,
        log: logging.Logger,
    ) -> None:
        """Create the pollers and the learner; they log to ``log``."""
        self.gateway = gateway
        self.store = StateStore()
        bounds = bounds_of(settings)
        messages = open_source(settings, gateway, self._listed, post.messages)
        self._with_log = messages is not None
        thresholds = Thresholds(gateway, bounds, can_query=adapter_of(gateway).can_query)
        self.metrics = ExporterMetrics(
            self.store,
            gateway.name,
            thresholds.of,
            thresholds.suspicion,
            with_log=self._with_log,
            list_is_log=gateway.messages is MessageSourceKind.ACTIVITY,
        )
        self._pollers: list[Poller] = []
        self._learner: Learner | None = None
        pause = settings.exporter_poll_seconds
        client = make_gateway(gateway, observe=self.metrics.observe_call, polls=True)
        if messages is None:
            self._pollers = [GatewayPoller(client, self.store, pause, log=log)]
            return
        observe = self.metrics.log_seconds.observe
        of_log = LogPoller(messages, self.store, pause, observe, log)
        # Not a pause later: a new channel is searched for, and the list may have the messages.
        of_list = GatewayPoller(client, self.store, pause, of_log.hurry, log)
        self._pollers = [of_list, of_log]
        if gateway.silence_mode is SilenceMode.ADAPTIVE:
            # Separate connections, so that polls do not wait for the learner.
            history = open_source(settings, gateway, self._last_listed)
            if history is not None:
                self._learner = Learner(gateway, bounds, history, self.store, log)

    def _listed(self) -> Collection[Channel]:
        state = self.store.snapshot.gateway
        if state is not None and not state.up:
            raise MessageLogError("the gateway does not return its channel list")
        return self._last_listed()

    def _last_listed(self) -> Collection[Channel]:
        state = self.store.snapshot.gateway
        # The log is read again as soon as there is a list.
        return state.channels if state is not None else ()

    def start(self) -> None:
        """Start daemon threads, which do not block the program's exit."""
        # First, so that no age is compared with another threshold than the learned one.
        if self._learner is not None:
            self._learner.start()
        for poller in self._pollers:
            start_thread(f"{poller.source} of {self.gateway.name}", poller.run)

    def stop(self) -> None:
        """Stop the threads without waiting for calls in progress."""
        for poller in self._pollers:
            poller.stop()
        if self._learner is not None:
            self._learner.stop()

    def hurry(self) -> None:
        """Poll the channel list as soon as its minimum pause allows."""
        self._pollers[0].hurry()

    @property
    def waiting(self) -> list[str]:
        """Sources that have not been polled yet."""
        return waiting_for(self.store.snapshot, with_log=self._with_log)


class Supervisor:
    """Starts and stops gateway monitors when the settings change; thread-safe."""

    def __init__(self, settings: Settings, post: Post) -> None:
        """Create the metrics page; ``apply_config`` starts the monitors."""
        self._collector = ExporterCollector()
        registry = make_registry(self._collector)
        registry.register(post.events)
        self.reload_metrics = ReloadMetrics(registry, "whatsapp_exporter")
        self.page = MetricsPage(registry)
        self._post = post
        self._settings = settings
        self._lock = threading.Lock()
        self._watched: dict[str, GatewayMonitor] = {}
        self._warming_up: dict[str, GatewayMonitor] = {}

    def apply_config(self, gateways: Sequence[GatewaySettings]) -> None:
        """Monitor exactly these gateways; monitors of unchanged ones keep running.

        A changed gateway keeps its old monitor until the new one has polled each source once:
        a gap in its metrics would end alerts. Raises SettingsError if a gateway cannot be
        monitored; then nothing has changed.
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
        # After a completed reload the page must not contain a removed gateway.
        self.page.refresh()

    def _is_watched(self, gateway: GatewaySettings) -> bool:
        present = self._warming_up.get(gateway.name) or self._watched.get(gateway.name)
        return present is not None and present.gateway == gateway

    def _make(self, gateway: GatewaySettings, *, several: bool) -> GatewayMonitor:
        log = logging.getLogger(f"exporter.{gateway.name}" if several else "exporter")
        monitor = GatewayMonitor(self._settings, gateway, self._post, log)
        monitor.store.subscribe(self.page.invalidate)
        if gateway.name in self._watched:
            self._warming_up[gateway.name] = monitor
            monitor.store.subscribe(partial(self._swap_in, monitor))
        else:
            self._watched[gateway.name] = monitor
        return monitor

    def _swap_in(self, warming: GatewayMonitor) -> None:
        """Replace the old monitor once the new one has polled each source."""
        name = warming.gateway.name
        if warming.waiting:
            return
        with self._lock:
            if self._warming_up.get(name) is warming:
                del self._warming_up[name]
                self._watched[name].stop()
                self._watched[name] = warming
                self._show()

    def hurry(self, gateway: str) -> None:
        """Poll the list as soon as its minimum pause allows: a session's state may have changed."""
        watched = self._watched.get(gateway)
        if watched is not None:
            watched.hurry()

    def _show(self) -> None:
        self._collector.show(monitor.metrics for monitor in self._watched.values())
        self.page.invalidate()

    @property
    def waiting(self) -> list[str]:
        """Sources that have not been polled yet."""
        watched = self._watched.copy()  # a reload may add to it
        several = len(watched) > 1
        return [
            f"{source} of {name}" if several else source
            for name, one in watched.items()
            for source in one.waiting
        ]
