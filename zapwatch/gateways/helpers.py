"""Helpers of the adapters: paths, phone numbers, pairing codes, parallel calls, starts."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import quote

from zapwatch.channels import is_usable_id
from zapwatch.clock import Clock
from zapwatch.gateways.base import Failure, GatewayErrorKind, PairingCode


def in_path(channel_id: str) -> str:
    """Quote an id as one segment of a path; raise Failure if no URL can contain it."""
    if not is_usable_id(channel_id):
        raise Failure(GatewayErrorKind.INVALID, "a channel id that no URL can hold")
    return quote(channel_id, safe="")


def object_at(holder: Any, *names: str) -> dict[str, Any]:
    """Return the object at a path of names, an empty one if it is missing."""
    for name in names:
        holder = holder.get(name) if isinstance(holder, dict) else None
    return holder if isinstance(holder, dict) else {}


_LONGEST = 15  # digits of a phone number, by ITU-T E.164


def number_of(jid: object) -> str | None:
    """Return the digits of ``55...@c.us`` or ``55...[.0]:7@s.whatsapp.net``; else None.

    An ``@lid`` identifies an account without its number.
    """
    if not isinstance(jid, str):
        return None
    digits, _, server = jid.partition("@")
    digits = digits.partition(":")[0].partition(".")[0].removeprefix("+")
    known = server in {"", "c.us", "s.whatsapp.net"}
    return digits if known and _is_number(digits) else None


_SHORTEST = 8
_WITH_NINTH = re.compile(r"(55[1-9]{2})9(\d{8})")
_WITHOUT_NINTH = re.compile(r"(55[1-9]{2})([6-9]\d{7})")  # mobile numbers only


def phone_number(text: str) -> str | None:
    """Return the digits of a typed phone number, None if it is invalid.

    The country code is required; none begins with a zero.
    """
    digits = re.sub(r"[\s().+-]", "", text)
    usable = _is_number(digits) and len(digits) >= _SHORTEST and not digits.startswith("0")
    return digits if usable else None


def other_form(number: str) -> str | None:
    """Add or remove the ninth digit of a Brazilian mobile number; None for other numbers.

    WhatsApp knows a number in the form in which it was registered.
    """
    if found := _WITH_NINTH.fullmatch(number):
        return "".join(found.groups())
    if found := _WITHOUT_NINTH.fullmatch(number):
        return "9".join(found.groups())
    return None


_PAIRING_CODE = re.compile(r"([A-Z0-9]{4})-?([A-Z0-9]{4})")


def read_pairing_code(told: object, seconds: float) -> PairingCode:
    """Parse a gateway's pairing code; raise Failure if it is invalid."""
    found = _PAIRING_CODE.fullmatch(told) if isinstance(told, str) else None
    if found is None:
        raise Failure(GatewayErrorKind.INVALID, "an answer without a pairing code")
    return PairingCode("-".join(found.groups()), seconds)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST


_T = TypeVar("_T")
_AT_ONCE = 8


def map_concurrently(ids: Sequence[str], ask: Callable[[str], _T]) -> list[_T | Failure]:
    """Return the result of ``ask`` for each id, or the Failure that it raised.

    If all fail, the gateway itself has failed, and the first Failure is raised.
    """

    def asked(channel_id: str) -> _T | Failure:
        try:
            return ask(channel_id)
        except Failure as failure:
            return failure

    if not ids:
        return []
    with ThreadPoolExecutor(min(_AT_ONCE, len(ids)), thread_name_prefix="sessions") as pool:
        answers = list(pool.map(asked, ids))
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    if len(failures) == len(answers):
        raise failures[0]
    return answers


class SessionStartTracker:
    """Session starts of one gateway; thread-safe."""

    def __init__(self, *, settle_seconds: float, clock: Clock | None = None) -> None:
        """Set the grace period after a start."""
        self._settle_seconds = settle_seconds
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._started_at: dict[str, float] = {}

    def started(self, channel_id: str) -> None:
        """Record a start."""
        with self._lock:
            self._started_at[channel_id] = self._clock.monotonic()

    def in_grace_period(self, channel_id: str) -> bool:
        """Whether the session was started so recently that calls about it must wait."""
        with self._lock:
            started_at = self._started_at.get(channel_id)
            if started_at is None:
                return False
            if self._clock.monotonic() - started_at < self._settle_seconds:
                return True
            del self._started_at[channel_id]
            return False
