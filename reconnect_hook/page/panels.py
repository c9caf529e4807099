"""What the page has of each gateway, and which one a request is about."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from operator import is_

from flask import abort, request
from werkzeug.exceptions import NotFound

from reconnect_hook.fleet import Fleet
from reconnect_hook.page.ended import Ended
from reconnect_hook.page.qr_watch import QrWatches
from reconnect_hook.page.sources import Prometheus
from reconnect_hook.page.strips import Strips
from reconnect_hook.service import Service


class UnnamedGatewayError(NotFound):
    """Of several gateways, the request names none."""

    @property
    def name(self) -> str:
        """What is wrong, in the words of an answer."""
        return "there are several gateways: add ?gateway= and the name of one"


@dataclass(frozen=True, slots=True)
class Panel:
    """One gateway, as the page sees it."""

    name: str
    service: Service
    watches: QrWatches
    ended: Ended
    strips: Strips


class Panels:
    """Follows the hook's gateways; safe between threads."""

    def __init__(self, fleet: Fleet, prometheus: Prometheus) -> None:
        self._fleet = fleet
        self._prometheus = prometheus
        self._lock = threading.Lock()
        self._panels: dict[str, Panel] = {}

    @property
    def all(self) -> Mapping[str, Panel]:
        """The present gateways by name."""
        services = self._fleet.services
        with self._lock:
            known = [panel.service for panel in self._panels.values()]
            if len(known) != len(services) or not all(map(is_, known, services.values())):
                self._panels = {name: self._of(service) for name, service in services.items()}
            return self._panels

    def _of(self, service: Service) -> Panel:
        known = self._panels.get(service.gateway.name)
        if known is not None and known.service is service:
            return known
        name = service.gateway.name
        return Panel(
            name,
            service,
            QrWatches(service.client, service.desk.look),
            known.ended if known else Ended(service.history),
            known.strips if known else Strips(self._prometheus, name),
        )

    @property
    def several(self) -> bool:
        """Whether people have to be told which gateway is meant."""
        return len(self._fleet.services) > 1

    def of_request(self) -> Panel:
        """Return the gateway that the request names; the only one need not be named.

        Answers 404 where there is none of that name, or where several could be meant.
        """
        panels = self.all
        name = request.args.get("gateway")
        if name is None:
            if len(panels) != 1:
                raise UnnamedGatewayError
            return next(iter(panels.values()))
        if name not in panels:
            abort(404)
        return panels[name]

    def named(self, gateway: str) -> str | None:
        """Return what an address says of a gateway: nothing where there is only one."""
        return gateway if self.several else None
