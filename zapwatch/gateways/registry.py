"""Registry and factory of adapters, and their monthly request budgets.

Both programs use the same account but share no state, so each has its own part of the budget: the
exporter three quarters, for its lists, and all other calls the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from zapwatch.channels import NamedChannel
from zapwatch.clock import Clock
from zapwatch.gateways.base import NO_BUDGET, ChannelList, Gateway, Observer, RequestBudget
from zapwatch.gateways.declaration import Declaration
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


class Access(Protocol):
    """Part of a gateway's settings that its adapter depends on."""

    @property
    def type(self) -> str:
        """Name in ADAPTERS."""

    @property
    def base_url(self) -> str:
        """URL without a trailing slash."""

    @property
    def secret(self) -> str:
        """Credential of every call."""

    @property
    def timeout(self) -> float:
        """Seconds for the list."""

    @property
    def qr_timeout(self) -> float:
        """Seconds for every other call."""

    @property
    def ca_file(self) -> str | None:
        """Certificates to trust instead of the public ones."""

    @property
    def user(self) -> str:
        """HTTP Basic user of a proxy in front of the gateway; empty for none."""

    @property
    def password(self) -> str:
        """Password of that user."""

    @property
    def channels(self) -> Sequence[NamedChannel]:
        """Channels that the settings name."""

    @property
    def messages(self) -> str:
        """Message source, a MessageSourceKind."""

    @property
    def declaration(self) -> Declaration | None:
        """Description of a user-defined type, else None."""

    @property
    def requests_per_month(self) -> int | None:
        """Request limit of all programs together; None for no limit."""

    @property
    def ignore(self) -> frozenset[str]:
        """Keys of channels to omit from lists."""

    @property
    def webhook(self) -> str:
        """Webhook of WPPConnect's sessions; empty to keep the stored one."""

    @property
    def ignore_stopped(self) -> bool:
        """Whether to omit stopped sessions from lists."""


def adapter_of(access: Access) -> type[Gateway]:
    """Return the adapter class of a gateway."""
    if access.declaration is not None:
        return adapter_for(access.declaration)
    return ADAPTERS[access.type]


def make_gateway(access: Access, *, observe: Observer, polls: bool = False) -> Gateway:
    """Create a gateway's adapter; its list omits the channels that the operator ignores.

    ``polls``: it only lists, within the budget for lists.
    """
    per_month = access.requests_per_month
    kind = ListBudget if polls else CallBudget
    options: dict[str, Any] = {"activity": access.messages == "activity"} if access.channels else {}
    if access.type == "wppconnect":
        options["webhook"] = access.webhook
    gateway = adapter_of(access)(
        access.base_url,
        access.secret,
        list_timeout=access.timeout,
        qr_timeout=access.qr_timeout,
        access=HttpAccess(access.ca_file, access.user, access.password),
        channels=access.channels,
        budget=kind(per_month) if per_month else NO_BUDGET,
        observe=observe,
        **options,
    )
    if access.ignore or access.ignore_stopped:
        # Here rather than in each adapter, so that none can omit it.
        list_all = gateway.list_channels
        gateway.list_channels = lambda: _leave_out(list_all(), access)  # type: ignore[method-assign]
    return gateway


def _leave_out(listed: ChannelList, access: Access) -> ChannelList:
    ignored = {
        channel.id
        for channel in listed.channels
        if channel.key in access.ignore or (access.ignore_stopped and channel.stopped)
    }
    channels = tuple(channel for channel in listed.channels if channel.id not in ignored)
    return ChannelList(channels, listed.left_out, tuple(sorted(ignored)))
