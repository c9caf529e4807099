"""Registry and factory of adapters, and their monthly request budgets.

Both programs use the same account but share no state, so each has its own part of the budget: the
exporter three quarters, for its lists, and all other calls the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from zapwatch.channels import Channel
from zapwatch.clock import Clock
from zapwatch.config.settings import GatewaySettings
from zapwatch.gateways.base import NO_BUDGET, ChannelList, Gateway, Observer, RequestBudget
from zapwatch.gateways.declared import adapter_for, shipped
from zapwatch.gateways.evolution import EvolutionGateway
from zapwatch.gateways.waha import WahaGateway
from zapwatch.gateways.whapi import WhapiGateway
from zapwatch.gateways.wppconnect import WppconnectGateway
from zapwatch.gateways.wrapper import WrapperGateway
from zapwatch.http import HttpAccess

_List = TypeVar("_List")
MONTH_SECONDS = 30 * 86400.0
_FOR_LISTS = 0.75
_AT_ONCE = 0.1  # burst, as a part of the month's calls
_FOR_CALLS = 0.4  # part of the burst that lists leave to calls and QR codes
_CALL_REQUESTS = 2  # that a call costs at most: it looks at the channel first
_UNSENT = ("connection", "tls")  # reasons of errors before a request was sent

ADAPTERS: Mapping[str, type[Gateway]] = {
    "wrapper": WrapperGateway,
    "wppconnect": WppconnectGateway,
    "evolution": EvolutionGateway,
    "waha": WahaGateway,
    "whapi": WhapiGateway,
    **{name: adapter_for(declared) for name, declared in shipped().items()},
}
"""Adapters by ``type``, see zapwatch.gateways.TYPES."""


class CallBudget(RequestBudget):
    """Budget for calls: a tenth as a burst, the rest refilled evenly over the month.

    So no period of 30 days exceeds the budget. Thread-safe.
    """

    def __init__(self, per_month: int, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        calls = per_month * (1 - _FOR_LISTS)
        self._most = calls * _AT_ONCE
        self._per_second = calls * (1 - _AT_ONCE) / MONTH_SECONDS
        self._left = self._most
        self._at = self._clock.monotonic()
        self._listed_at = float("-inf")
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take one request from the budget; return false if none is left."""
        with self._lock:
            self._refill()
            if self._left < 1:
                return False
            self._left -= 1
            return True

    def spares(self, requests: int) -> bool:
        """Whether half of the burst remains after this many requests."""
        with self._lock:
            self._refill()
            return self._left - requests >= self._most / 2

    def may_list(self, requests: int) -> bool:
        """Whether calls and QR codes can spare a list; else lists get half of what is refilled.

        The lists of a repair that waits would use up the burst in minutes. At least one call stays
        affordable, else a list would be of no use.
        """
        with self._lock:
            self._refill()
            has_rested = self._at - self._listed_at >= 2 * requests / self._per_second
            one_call = min(_CALL_REQUESTS, self._most - requests)
            if self._left - requests < (one_call if has_rested else self._most * _FOR_CALLS):
                return False
            self._listed_at = self._at
            return True

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now


class ListBudget(RequestBudget):
    """Budget for lists: a new one at the interval that the month allows, the last one in between.

    For a single thread. Errors are kept like lists, so that a failing gateway costs no more, unless
    the request did not reach the gateway.
    """

    def __init__(self, per_month: int, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._per_month = per_month * _FOR_LISTS
        self._next = float("-inf")
        self._answer: Any = None

    def listed(self, requests: int, ask: Callable[[], _List]) -> _List:
        """Return a list from ``ask``, which costs ``requests``, or the last one."""
        now = self._clock.monotonic()
        if now >= self._next:
            # N lists have N - 1 pauses between them.
            pauses = max(1, self._per_month // requests - 1)
            self._next = now + MONTH_SECONDS / pauses
            try:
                self._answer = ask()
            except Exception as error:  # noqa: BLE001 - it is raised below
                self._answer = error
                if getattr(error, "reason", None) in _UNSENT:
                    self._next = now
        if isinstance(self._answer, Exception):
            raise self._answer.with_traceback(None)
        return self._answer  # type: ignore[no-any-return]


def adapter_of(settings: GatewaySettings) -> type[Gateway]:
    """Return the adapter class of a gateway."""
    if settings.declaration is not None:
        return adapter_for(settings.declaration)
    return ADAPTERS[settings.type]


def make_gateway(settings: GatewaySettings, *, observe: Observer, polls: bool = False) -> Gateway:
    """Create a gateway's adapter; its list omits the channels that the operator ignores.

    ``polls``: it only lists, within the budget for lists.
    """
    per_month = settings.requests_per_month
    kind = ListBudget if polls else CallBudget
    options: dict[str, Any] = {}
    if settings.channels:
        options["activity"] = settings.messages == "activity"
    if settings.type == "wppconnect":
        options["webhook"] = settings.webhook
    gateway = adapter_of(settings)(
        settings.base_url,
        settings.secret,
        list_timeout=settings.timeout,
        qr_timeout=settings.qr_timeout,
        access=HttpAccess(settings.ca_file, settings.user, settings.password),
        channels=settings.channels,
        budget=kind(per_month) if per_month else NO_BUDGET,
        observe=observe,
        **options,
    )
    if settings.ignore or settings.ignore_stopped:
        # Here rather than in each adapter, so that none can omit it.
        list_all = gateway.list_channels
        gateway.list_channels = lambda: _leave_out(list_all(), settings)  # type: ignore[method-assign]
    return gateway


def list_once(settings: GatewaySettings) -> Sequence[Channel]:
    """Return a gateway's channels by a client of its own; raise GatewayError."""
    gateway = make_gateway(settings, observe=lambda *_: None)
    try:
        return gateway.list_channels().channels
    finally:
        gateway.close()


def _leave_out(listed: ChannelList, settings: GatewaySettings) -> ChannelList:
    ignored = {
        channel.id
        for channel in listed.channels
        if settings.ignore.of(channel) or (settings.ignore_stopped and channel.stopped)
    }
    channels = tuple(channel for channel in listed.channels if channel.id not in ignored)
    return ChannelList(channels, listed.left_out, tuple(sorted(ignored)))
