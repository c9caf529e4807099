"""The threads of one gateway: a list, a call or a probe each, whose answers are mail."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from reconnect_hook.attempt_log import AttemptStep, StepKind
from reconnect_hook.context import Interrupted, PostponedError, ProbeContext, UnableError
from reconnect_hook.decision import CallAnswer, MakeCall
from reconnect_hook.models import Step
from reconnect_hook.probe import Finding, ProbeRun
from zapwatch.channels import Channel, known_numbers
from zapwatch.clock import Clock
from zapwatch.db import StateError
from zapwatch.gateways.base import Gateway, GatewayError, GatewayErrorKind, Operation
from zapwatch.messages.source import MessageSource
from zapwatch.messages.webhook_log import MessageLogError

_log = logging.getLogger("reconnect_hook")

_LOG_AGAIN_SECONDS = 60.0  # until a message log that could not be read is tried again

StartThread = Callable[[Callable[[], None]], None]
"""Runs something beside everything else; raises RuntimeError where the system has no thread."""


def start_thread(work: Callable[[], None]) -> None:
    """Run something in a thread that does not keep the program from ending."""
    threading.Thread(target=work, name="gateway-call", daemon=True).start()


@dataclass(frozen=True, slots=True)
class Listed:
    """The answer to a list; the moments are of the monotonic clock.

    ``ages`` are the seconds since the channels' last messages, as far as they were read.
    """

    look: int
    asked_at: float
    answered_at: float
    channels: Mapping[str, Channel] = field(default_factory=dict)
    ages: Mapping[str, float] = field(default_factory=dict)
    error: GatewayError | None = None


@dataclass(frozen=True, slots=True)
class Called:
    """The answer to a call about a channel; None: there was no thread for it."""

    key: str
    step: Step
    answer: CallAnswer | None


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What a probe of a channel has found, or why it has not, after so many seconds."""

    key: str
    finding: Finding | Exception
    seconds: float
    steps: tuple[AttemptStep, ...] = ()
    """What it has done, by the monotonic clock."""


Mail = Listed | Called | ProbeAnswer


class UnreadableError(PostponedError):
    """Something that the probe needs could not be read."""


class Workers:
    """Runs the calls of one lead; its methods are for the thread of the loop.

    ``start`` runs what they are given, ``wake`` is called when there is mail.
    """

    def __init__(
        self,
        client: Gateway,
        probing: ProbeContext,
        messages: MessageSource | None,
        wake: Callable[[], None],
        clock: Clock,
        start: StartThread = start_thread,
    ) -> None:
        self.channels: Mapping[str, Channel] | None = None
        """By key what the last list had, None where there is none."""
        self.numbers: Mapping[str, str] = {}
        """The channels' own numbers by key, of all lists so far; in memory alone."""
        self._client = client
        self._probing = probing
        self._wake = wake
        self._clock = clock
        self._start = start
        self.mail: deque[Mail] = deque()
        self._lead = object()
        self.calls: set[str] = set()
        """The keys of the channels of which a call is in flight, or its answer is mail."""
        self.probes: dict[str, threading.Event] = {}
        """The same of probes, each with what cancels it."""
        self._messages = messages

    def latest_channels(self) -> Collection[Channel]:
        """Return the channels of the last list; raise MessageLogError where there is none."""
        if self.channels is None:
            raise MessageLogError("the channel list could not be read")
        return self.channels.values()

    @property
    def reads_messages(self) -> bool:
        """Whether there is a source of messages."""
        return self._messages is not None

    def begin_lead(self) -> None:
        """Want nothing any more of what an earlier lead has begun."""
        self.cancel_probes()
        self._lead = object()
        self.mail.clear()
        self.calls.clear()
        self.probes.clear()

    def take_mail(self) -> list[Mail]:
        """Return what has come in since; a call or a probe of which is no longer in flight."""
        mail: list[Mail] = []
        while self.mail:
            one = self.mail.popleft()
            if isinstance(one, Called):
                self.calls.discard(one.key)
            elif isinstance(one, ProbeAnswer):
                self.probes.pop(one.key, None)
            mail.append(one)
        return mail

    def post(self, mail: Mail) -> None:
        """Take mail."""
        self.mail.append(mail)
        self._wake()

    def _post(self, lead: object, mail: Mail) -> None:
        if lead is self._lead:
            self.post(mail)

    def cancel_probes(self) -> None:
        """Let the probes end before they have found anything."""
        for cancel in self.probes.values():
            cancel.set()

    def cancel_probe(self, key: str) -> None:
        """Let one probe end, and want nothing of it any more."""
        if key in self.probes:
            self.probes.pop(key).set()

    # Each of these returns whether there is a thread for it.

    def start_list(self, look: int, horizon: float | None) -> bool:
        """Ask for the list, and where there is a ``horizon`` for the messages of its seconds."""
        return self._begin(partial(self._list, self._lead, look, horizon))

    def start_call(self, key: str, channel: Channel, call: MakeCall) -> None:
        """Make a call."""
        self.calls.add(key)
        if not self._begin(partial(self._call, self._lead, key, channel, call)):
            self.post(Called(key, call.step, None))

    def start_probe(self, key: str, channel: Channel, *, proof: bool, query_failed: bool) -> None:
        """Probe a channel; see ProbeRun for what it is told."""
        cancel = self.probes[key] = threading.Event()
        run = partial(self._probe, self._lead, key, channel, cancel, proof, query_failed)
        if not self._begin(run):
            self.post(ProbeAnswer(key, Interrupted(), 0.0))

    def _begin(self, work: Callable[[], None]) -> bool:
        try:
            self._start(work)
        except RuntimeError:
            _log.warning("the system allows no more threads: repairs wait for each other")
            return False
        return True

    # In a thread of its own.

    def _list(self, lead: object, look: int, horizon: float | None) -> None:
        answer = Listed(look, self._clock.monotonic(), 0.0)
        try:
            listed = self._client.list_channels().channels
            answer = replace(answer, channels={channel.key: channel for channel in listed})
            self.channels = answer.channels
            self.numbers = known_numbers(listed, self.numbers)
        except GatewayError as error:
            answer = replace(answer, error=error)
        except Exception:  # noqa: BLE001
            _log.exception("the list met a fault of the hook itself")
            fault = GatewayError(Operation.LIST, GatewayErrorKind.INVALID, "fault of the hook")
            answer = replace(answer, error=fault)
        answer = replace(answer, answered_at=self._clock.monotonic())
        if horizon is not None and answer.error is None:
            answer = replace(answer, ages=self._ages(horizon))
        self._post(lead, answer)

    def _ages(self, horizon: float) -> Mapping[str, float]:
        """Return the ages of the last messages; none where that cannot be read."""
        try:
            return self._messages.recent(horizon).ages if self._messages else {}
        except MessageLogError:
            return {}
        except Exception:  # noqa: BLE001
            _log.exception("the messages met a fault of the hook itself")
            return {}

    def _call(self, lead: object, key: str, channel: Channel, call: MakeCall) -> None:
        try:
            answer = self._ask(channel, call)
        except GatewayError as error:
            answer = CallAnswer(error=error)
        except Exception:  # noqa: BLE001
            # Unforeseen, but even then what was accepted ends in an outcome.
            _log.exception("a repair met a fault of the hook itself")
            answer = CallAnswer(is_fault=True)
        self._post(lead, Called(key, call.step, answer))

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
        proof: bool,  # noqa: FBT001 - partial() hands them over
        query_failed: bool,  # noqa: FBT001
    ) -> None:
        began = self._clock.monotonic()

        def wait(seconds: float) -> None:
            if self._clock.wait(cancel, seconds):
                raise Interrupted

        steps: list[AttemptStep] = []

        def note(kind: StepKind, words: str = "") -> None:
            steps.append(AttemptStep(self._clock.monotonic(), kind, words))

        context = replace(self._probing, wait=wait, note=note)
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
            _log.exception("a probe met a fault of the hook itself")
            finding = UnreadableError(str(error), _LOG_AGAIN_SECONDS)
        seconds = self._clock.monotonic() - began
        self._post(lead, ProbeAnswer(key, finding, seconds, tuple(steps)))
