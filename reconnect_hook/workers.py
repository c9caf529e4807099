"""Worker threads of one gateway: each runs a list, call or probe and posts the answer as mail."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from reconnect_hook.decision import CallAnswer, MakeCall
from reconnect_hook.echo import Interrupted, PostponedError, ProbeContext, UnableError
from reconnect_hook.event_log import AttemptStep
from reconnect_hook.models import Step
from reconnect_hook.probe import Finding, ProbeRun
from zapwatch.channels import ByName, Channel, Status, channel_key, known_numbers
from zapwatch.clock import Clock
from zapwatch.db import StateError
from zapwatch.gateways.base import Gateway, GatewayError, GatewayErrorKind, Operation
from zapwatch.messages.message import MessageLogError
from zapwatch.messages.source import MessageSource

_log = logging.getLogger("reconnect_hook")

_LOG_AGAIN_SECONDS = 60.0  # until a probe retries an unreadable message log

StartThread = Callable[[Callable[[], None]], None]
"""Runs a function in a thread; raises RuntimeError if the system has none left."""


def start_thread(work: Callable[[], None]) -> None:
    """Run a function in a daemon thread."""
    threading.Thread(target=work, name="gateway-call", daemon=True).start()


class OneAtATime:
    """Runs background work in at most one thread."""

    def __init__(self, start: StartThread) -> None:
        self._start = start
        self._running = threading.Lock()

    def begin(self, work: Callable[[], None]) -> None:
        """Run the work, unless some is running or the system has no thread left."""
        if not self._running.acquire(blocking=False):
            return

        def run() -> None:
            try:
                work()
            finally:
                self._running.release()

        try:
            self._start(run)
        except RuntimeError:
            self._running.release()


@dataclass(frozen=True)
class Listed:
    """The answer to a list; times are of the monotonic clock.

    ``ages``: seconds since the channels' last messages, None if the look read none.
    """

    look: int
    asked_at: float
    answered_at: float
    channels: Mapping[str, Channel] = field(default_factory=dict)
    ages: Mapping[str, float] | None = None
    error: GatewayError | None = None

    @cached_property
    def spellings(self) -> ByName[Channel]:
        """The channels, to be found by another spelling of their names."""
        return ByName(self.channels)


@dataclass(frozen=True, slots=True)
class Called:
    """The answer to a call for a channel; None if no thread was available."""

    key: str
    step: Step
    answer: CallAnswer | None


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """A probe's finding, or the exception that ended it, and its duration in seconds."""

    key: str
    finding: Finding | Exception
    seconds: float
    steps: tuple[AttemptStep, ...] = ()
    """Steps with times of the monotonic clock."""


Mail = Listed | Called | ProbeAnswer


class UnreadableError(PostponedError):
    """The message log or the state could not be read."""


class Workers:
    """Runs the calls of one lead; but for stop(), for the reconciler's thread only.

    ``start`` runs functions in threads, ``wake`` is called when mail arrives.
    """

    def __init__(
        self,
        client: Gateway,
        probing: ProbeContext,
        messages: MessageSource | None,
        wake: Callable[[], None],
        clock: Clock,
        start: StartThread = start_thread,
        *,
        capacity: int,
    ) -> None:
        self.capacity = capacity
        """How many calls may be in flight, and how many probes; 0 at the end."""
        self.channels: Mapping[str, Channel] | None = None
        """The channels of the last list by key, None before the first."""
        self.numbers: Mapping[str, str] = {}
        """The channels' own numbers by key, from all lists so far; only in memory."""
        self._client = client
        self._probing = probing
        self._wake = wake
        self._clock = clock
        self._start = start
        self._mail: deque[tuple[object, Mail]] = deque()
        self._lead = object()
        self.calls: set[str] = set()
        """Keys of the channels with a call in flight, or its answer in the mail."""
        self.probes: dict[str, threading.Event] = {}
        """The same for probes, with the event that cancels each."""
        self._messages = messages
        self.reads_messages = messages is not None
        """Whether there is a message source."""

    def channel_of(self, name: str) -> Channel:
        """Return the channel of this name in the last list, else one of unknown status."""
        listed = (self.channels or {}).get(channel_key(name))
        return listed or Channel(name, Status.UNKNOWN)

    def begin_lead(self) -> None:
        """Cancel the probes of an earlier lead, and drop its mail, also what is still to come."""
        self._cancel_probes()
        self._lead = object()
        self.calls.clear()
        self.probes.clear()

    def take_mail(self) -> list[Mail]:
        """Return all mail; its calls and probes are no longer in flight."""
        mail: list[Mail] = []
        while self._mail:
            lead, one = self._mail.popleft()
            if lead is not self._lead:
                continue
            if isinstance(one, Called):
                self.calls.discard(one.key)
            elif isinstance(one, ProbeAnswer):
                self.probes.pop(one.key, None)
            mail.append(one)
        return mail

    def _post(self, mail: Mail, lead: object = None) -> None:
        """Add mail of this or an earlier ``lead``, and wake the loop."""
        self._mail.append((lead or self._lead, mail))
        self._wake()

    def stop(self) -> None:
        """Interrupt all probes, and let nothing begin; any thread may call it."""
        self.capacity = 0
        self._cancel_probes()

    def _cancel_probes(self) -> None:
        # A copy, since the reconciler's thread may change it meanwhile.
        for cancel in list(self.probes.values()):
            cancel.set()

    def cancel_probe(self, key: str) -> None:
        """Interrupt one probe and forget it."""
        if key in self.probes:
            self.probes.pop(key).set()

    # Starting work in threads.

    def start_list(self, look: int, horizon: float | None) -> bool:
        """List the channels, and read messages ``horizon`` seconds back; False without a thread."""
        return self._begin(partial(self._list, self._lead, look, horizon))

    def start_call(self, key: str, channel: Channel, call: MakeCall) -> None:
        """Make a call; without a thread, post an empty answer."""
        self.calls.add(key)
        if not self._begin(partial(self._call, self._lead, key, channel, call)):
            self._post(Called(key, call.step, None))

    def start_probe(self, key: str, channel: Channel, *, proof: bool, query_failed: bool) -> None:
        """Probe a channel; see ProbeRun for ``query_failed``; ``proof``: after a repair."""
        cancel = self.probes[key] = threading.Event()
        run = partial(self._probe, self._lead, key, channel, cancel, proof, query_failed)
        if not self._begin(run):
            self._post(ProbeAnswer(key, Interrupted(), 0.0))

    def _begin(self, work: Callable[[], None]) -> bool:
        try:
            self._start(work)
        except RuntimeError:
            _log.warning("the system allows no more threads: repairs wait for each other")
            return False
        return True

    # Run in the threads.

    def _list(self, lead: object, look: int, horizon: float | None) -> None:
        asked_at = self._clock.monotonic()
        channels: Mapping[str, Channel] = {}
        failed: GatewayError | None = None
        try:
            listed = self._client.list_channels().channels
            channels = {channel.key: channel for channel in listed}
            if lead is self._lead:
                self.channels, self.numbers = channels, known_numbers(listed, self.numbers)
        except GatewayError as error:
            failed = error
        except Exception:  # noqa: BLE001
            _log.exception("the list failed: internal error")
            failed = GatewayError(Operation.LIST, GatewayErrorKind.INVALID, "internal error")
        answered_at = self._clock.monotonic()
        ages = None if horizon is None or failed else self._ages(horizon)
        self._post(Listed(look, asked_at, answered_at, channels, ages, failed), lead)

    def _ages(self, horizon: float) -> Mapping[str, float]:
        """Return the ages of the last messages in seconds, empty if they are unreadable."""
        try:
            return self._messages.recent(horizon).ages if self._messages else {}
        except MessageLogError:
            return {}
        except Exception:  # noqa: BLE001
            _log.exception("the messages failed: internal error")
            return {}

    def _call(self, lead: object, key: str, channel: Channel, call: MakeCall) -> None:
        try:
            answer = self._ask(channel, call)
        except GatewayError as error:
            answer = CallAnswer(error=error)
        except Exception:  # noqa: BLE001
            # Unexpected, but accepted work always ends with an outcome.
            _log.exception("a repair failed: internal error")
            answer = CallAnswer(is_fault=True)
        self._post(Called(key, call.step, answer), lead)

    def _ask(self, channel: Channel, call: MakeCall) -> CallAnswer:
        client = self._client
        match call.step:
            case Step.RECONNECT:
                answer = client.reconnect(channel, silent=call.silent, stuck=call.stuck)
                return CallAnswer(answer.kind)
            case Step.QR:
                return CallAnswer(client.qr(channel.id).kind)
            case Step.START:
                client.start_session(channel.id)
            case Step.DELETE:
                client.delete(channel.id)
            case _:
                client.create(channel.id)
        return CallAnswer()

    def _probe(
        self,
        lead: object,
        key: str,
        channel: Channel,
        cancel: threading.Event,
        proof: bool,  # noqa: FBT001 - passed by partial()
        query_failed: bool,  # noqa: FBT001
    ) -> None:
        began = self._clock.monotonic()

        def wait(seconds: float) -> None:
            if self._clock.wait(cancel, seconds):
                raise Interrupted

        context = replace(self._probing, wait=wait, steps=[])
        finding: Finding | Exception
        try:
            run = ProbeRun(
                context, channel, self.channels or {}, repaired=proof, query_failed=query_failed
            )
            finding = run.run(context.kind_of(channel))
        except (Interrupted, PostponedError, UnableError) as error:
            finding = error
        except (MessageLogError, StateError) as error:
            finding = UnreadableError(str(error), _LOG_AGAIN_SECONDS)
        except Exception as error:  # noqa: BLE001
            _log.exception("a probe failed: internal error")
            finding = UnreadableError(str(error), _LOG_AGAIN_SECONDS)
        seconds = self._clock.monotonic() - began
        # After a late answer of its gateway, another probe of the channel may be in progress.
        if self.probes.get(key) is cancel:
            self._post(ProbeAnswer(key, finding, seconds, tuple(context.steps)), lead)
