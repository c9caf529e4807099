"""All gateways that are being repaired, as the settings name them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from reconnect_hook.metrics import Metrics
from reconnect_hook.service import Service, Store, make_service
from whatsapp.settings import GatewaySettings, Settings

RELOAD_SECONDS = 5.0
"""For a repair under way to end, when its gateway has changed or gone; then it is put back."""


class Fleet:
    """Repairs at gateways, and at others when the settings are read again; for all threads."""

    def __init__(self, settings: Settings, store: Store, metrics: Metrics) -> None:
        """Repair nothing yet."""
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._lock = threading.Lock()
        self._services: Mapping[str, Service] = {}

    @property
    def services(self) -> Mapping[str, Service]:
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


def _stop(services: Iterable[Service], seconds: float) -> None:
    """Stop all at once, so that none waits for another."""
    threads = [
        threading.Thread(target=_end, args=(service, seconds), daemon=True) for service in services
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _end(service: Service, seconds: float) -> None:
    # Both at once.
    stopping = threading.Thread(target=service.prober.stop, args=(seconds,), daemon=True)
    stopping.start()
    service.workers.stop(seconds)
    stopping.join()
    service.client.close()
