"""Hooks, their state and a gateway in one thread, on one clock that tests move."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa

from reconnect_hook.alerts import AlertWriter, Disposition
from reconnect_hook.decision import Policy
from reconnect_hook.delivery import DeliveryCheck
from reconnect_hook.echo import ProbeContext
from reconnect_hook.event_log import EventLog
from reconnect_hook.history import Attempt, RepairHistory
from reconnect_hook.message_audit import AuditRepository, MessageAuditor, Replay
from reconnect_hook.message_replay import Consumer, MessageReplayer, ReplayRepository
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.models import Action, Backoff, ChannelRow, RepairCause
from reconnect_hook.operator_actions import OperatorActions
from reconnect_hook.probe_limits import ProbeRepository
from reconnect_hook.reconciler import Beside, GatewayReconciler, Scheduler
from reconnect_hook.recorder import Recorder
from reconnect_hook.repository import Lead, add_gateways, read_rows
from reconnect_hook.schema import open_state
from reconnect_hook.workers import Workers
from tests.support.states import firing, hurry, resolved, state_url
from zapwatch.channels import ByName, Channel, Status, channel_key
from zapwatch.clock import Clock
from zapwatch.config.readers import AuditMode, ProbeKind, ReplayMode
from zapwatch.config.settings import ProbeSettings
from zapwatch.db import Database, StateError
from zapwatch.gateways.base import (
    ChannelList,
    Gateway,
    GatewayError,
    GatewayErrorKind,
    Operation,
    QrAnswer,
    QrKind,
    WebhookConfig,
)
from zapwatch.gateways.helpers import Entry, read_chats
from zapwatch.messages.message import (
    Delivered,
    MessageLogError,
    Received,
    ReceivedMessage,
    RecentMessages,
    Wanted,
    no_pause,
)

GATEWAY = "wpp"


class WorldClock(Clock):
    """A clock that stands still until moved; ``jumped`` is added to the wall clock."""

    def __init__(self) -> None:
        self.seconds = 5_000.0
        self.jumped = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def time(self) -> float:
        return 1_700_000_000.0 + self.seconds + self.jumped

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Suspend a probe's thread for that time, while the rest of the world runs."""
        if not event.is_set():
            Turn.present().pause(seconds)
        return event.is_set()


class _Died(BaseException):
    """The thread's process was killed."""


class Turn:
    """A probe's thread, which runs only while everything else stands still."""

    _here = threading.local()

    def __init__(
        self, later: Callable[[float, Callable[[], None]], None], work: Callable[[], None]
    ) -> None:
        self._later = later
        self._work = work
        self._go = threading.Semaphore(0)
        self._stands = threading.Semaphore(0)
        self._is_dead = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @classmethod
    def present(cls) -> Turn:
        turn: Turn = cls._here.turn
        return turn

    def _run(self) -> None:
        self._here.turn = self
        self._go.acquire()
        with suppress(_Died):
            if not self._is_dead:
                self._work()
        self._stands.release()

    def resume(self) -> None:
        """Run the thread until its next pause or its end."""
        if self._thread.is_alive():
            self._go.release()
            self._stands.acquire()

    def pause(self, seconds: float) -> None:
        self._later(seconds, self.resume)
        self._stands.release()
        self._go.acquire()
        if self._is_dead:
            raise _Died

    def die(self) -> None:
        """End the thread, as in a process that was killed."""
        self._is_dead = True
        self.resume()
        self._thread.join()


class FakeGateway(Gateway):
    """A gateway whose channels, answers and failures are attributes."""

    usual_port = 0
    hints: Mapping[GatewayErrorKind, str] = {}  # type: ignore[misc]
    reconnect_call = "getQr"
    lists_messages = True
    makes_events = True

    def __init__(self, clock: WorldClock, *, can_query: bool = False) -> None:
        super().__init__("http://gateway.example.com", "not-a-real-secret")
        vars(self)["can_query"] = can_query
        self.clock = clock
        self.statuses: dict[str, Status] = {}
        self.calls: list[tuple[str, str, float]] = []
        """Each call: its name, the channel's id and the monotonic time."""
        self.lists = 0
        self.list_error: GatewayErrorKind | None = None
        self.call_error: GatewayErrorKind | None = None
        self.answer = QrKind.ACCEPTED
        self.on_call: Callable[[str, str], None] = lambda _call, _channel: None
        self.gone: set[str] = set()
        """Channels that are connected only in the list: queries and messages fail."""
        self.deaf: set[str] = set()
        """Channels that send and answer queries, but receive nothing."""
        self.heals = True
        """Whether a reconnect call repairs a channel."""
        self.carry: Callable[[str, str], None] = lambda _channel, _text: None
        """Called with the receiving channel and the text."""
        self.flags: list[tuple[bool, bool]] = []
        """``silent`` and ``stuck`` of each reconnect()."""
        self.has: dict[str, list[ReceivedMessage]] = {}
        """Received messages by channel."""
        self.cannot_know = ""
        self.posts_to: WebhookConfig | None = None

    def calls_of(self, channel: str) -> list[str]:
        return [name for name, about, _ in self.calls if about == channel]

    def list_channels(self) -> ChannelList:
        self.lists += 1
        if self.list_error is not None:
            raise GatewayError(Operation.LIST, self.list_error, "made up")
        numbers = map(str, itertools.count(5_500_000_000_001))
        return ChannelList.of(
            (
                Channel(name, status, number)
                for (name, status), number in zip(self.statuses.items(), numbers, strict=False)
            )
        )

    def _called(self, name: str, operation: Operation, channel: str) -> QrAnswer:
        self.calls.append((name, channel, self.clock.monotonic()))
        if self.call_error is not None:
            raise GatewayError(operation, self.call_error, "made up")
        self.on_call(name, channel)
        return QrAnswer(self.answer)

    def reconnect(self, channel: Channel, *, silent: bool, stuck: bool = False) -> QrAnswer:
        self.flags.append((silent, stuck))
        answer = self._called("reconnect", Operation.RECONNECT, channel.id)
        if self.heals:
            self.gone.discard(channel.id)
            self.deaf.discard(channel.id)
        return answer

    def qr(self, channel_id: str) -> QrAnswer:
        return self._called("qr", Operation.QR, channel_id)

    def _start_session(self, _calls: object, channel_id: str) -> None:
        self._called("start_session", Operation.START_SESSION, channel_id)

    def delete(self, channel_id: str) -> None:
        self._called("delete", Operation.DELETE, channel_id)

    def create(self, channel_id: str) -> None:
        self._called("create", Operation.CREATE, channel_id)

    def received(self, channel: Channel, wanted: Wanted) -> Received:
        self._called("received", Operation.MESSAGES, channel.id)
        rows = [
            Entry(one.at, one.id, one.kind, one.chat, {"id": one.id})
            for one in self.has.get(channel.id, [])
        ]
        return replace(read_chats([[rows]], wanted), cannot_know=self.cannot_know)

    def webhook(self, channel: Channel) -> WebhookConfig | None:
        self._called("webhook", Operation.WEBHOOK, channel.id)
        return self.posts_to

    def query(self, channel: Channel) -> None:
        self._called("query", Operation.QUERY, channel.id)
        if channel.id in self.gone:
            raise GatewayError(Operation.QUERY, GatewayErrorKind.TIMEOUT, "made up")

    def send_text(self, channel: Channel, number: str, text: str) -> str | None:
        self._called("send_text", Operation.SEND, channel.id)
        (receiver,) = (one.id for one in self.list_channels().channels if one.number == number)
        if channel.id in self.gone:
            raise GatewayError(Operation.SEND, GatewayErrorKind.TIMEOUT, "made up")
        if receiver not in self.gone | self.deaf:
            self.carry(receiver, text)
        return None


class FakeMessages:
    """A source with the last messages in ``came``: wall clock times by channel key."""

    def __init__(self, clock: WorldClock) -> None:
        self._clock = clock
        self.came: dict[str, float] = {}
        self.echoes: dict[str, float] = {}
        self.is_down = False
        self.ids: dict[str, set[str]] = {}
        """Ids of arrived messages by channel key."""
        self.gaps: Collection[tuple[float, float]] = ()
        self.takes = 0.0
        """Seconds of one read by delivered()."""

    def carry(self, channel: str, text: str) -> None:
        self.came[channel_key(channel)] = self._clock.time()
        self.echoes[text.rpartition(" ")[2]] = self._clock.time()

    def recent(self, seconds: float) -> RecentMessages:
        if self.is_down:
            raise MessageLogError("made up")
        since = self._clock.time() - seconds
        ages = {key: self._clock.time() - at for key, at in self.came.items() if at >= since}
        return RecentMessages(ages, {token for token, at in self.echoes.items() if at >= since})

    def delivered(
        self, _channels: Collection[Channel], since: float, pause: Callable[[], None] = no_pause
    ) -> Delivered:
        if self.is_down:
            raise MessageLogError("made up")
        for _ in range(10):
            self._clock.seconds += self.takes / 10
            pause()
        return Delivered(
            lambda key, ids: self.ids.get(key, set()) & set(ids),
            {key for key, at in self.came.items() if at >= since},
            self.gaps,
        )


class FakeConsumer:
    """A webhook that accepts replayed messages, after returning ``answers``."""

    def __init__(self) -> None:
        self.got: list[str] = []
        """All posted ids, whatever the answer."""
        self.answers: list[tuple[Replay, str]] = []
        self.on_post: Callable[[], object] = lambda: None

    def post(self, _channel: str, event: Mapping[str, Any]) -> tuple[Replay, str]:
        self.got.append(event["id"])
        self.on_post()
        return self.answers.pop(0) if self.answers else (Replay.DELIVERED, "")


@dataclass(frozen=True)
class Options:
    """Options of a world; times in seconds."""

    cooldown: float = 300.0
    verify: float = 60.0
    threshold: float = 14_400.0
    workers: int = 4
    list_takes: float = 0.1
    call_takes: float = 0.2
    allow_restart: bool = False
    keeps_channel: bool = False
    can_query: bool = False
    is_counted: bool = False
    """Whether the gateway has a request budget."""
    has_messages: bool = True
    compares: bool = False
    """Whether probes compare the gateway's messages with the arrived ones."""
    audit: AuditMode = AuditMode.OFF
    replay: ReplayMode = ReplayMode.MANUAL
    probe: ProbeSettings = field(
        default_factory=lambda: ProbeSettings(
            ProbeKind.OFF, ByName({}), 60.0, 15.0, 6, ByName({}), "ping"
        )
    )


class WorldHook:
    """One hook of a world."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        options = world.options
        self.database = world.open()
        if self.database.is_sqlite:
            hurry(self.database._engine)
        sa.event.listen(self.database._engine, "commit", world.note_commit)
        backoff = Backoff(options.cooldown)
        self.scheduler = Scheduler(self.database)
        self.metrics = HookMetrics()
        self.history = RepairHistory(self.database, GATEWAY, backoff)
        self.writer = AlertWriter(self.database, GATEWAY, backoff, self.scheduler.wake)
        self.actions = OperatorActions(self.database, GATEWAY, self.writer, self.scheduler.wake)
        book = ProbeRepository(self.database, GATEWAY, options.probe)
        messages: Any = world.messages if options.has_messages else None
        check = DeliveryCheck(world.client, messages, world.clock) if options.compares else None
        self.probing = ProbeContext(world.client, messages, book, options.probe, delivery=check)
        self.policy = Policy(
            backoff,
            options.verify,
            lambda _channel: options.threshold,
            Action(world.client.reconnect_call),
            allow_restart=options.allow_restart,
            keeps_channel=options.keeps_channel or world.client.keeps_channel,
            starting_hint=world.client.starting_hint,
            lists_qr=world.client.lists_qr,
            probe_kind=self.probing.kind_of,
            probe_after=options.probe.after_minutes * 60,
            probe_pause=options.probe.pause_minutes * 60,
            audits=options.audit is not AuditMode.OFF,
        )
        self.replayer = MessageReplayer(
            ReplayRepository(self.database, GATEWAY),
            world.client,
            messages,
            cast(Consumer, world.consumer),
            world.events,
            partial(self.metrics.count_replay, GATEWAY),
            start=self._start,
        )

        self.auditor = MessageAuditor(
            AuditRepository(self.database, GATEWAY, replays=options.replay is ReplayMode.AUTO),
            world.client,
            messages,
            world.events,
            partial(self.metrics.count_audit, GATEWAY),
            options.audit,
            clock=world.clock,
            start=self._start,
        )
        self.metrics.watch(GATEWAY, self.history, self.auditor.repository)
        self.workers = Workers(
            world.client,
            self.probing,
            messages,
            self.scheduler.notify,
            world.clock,
            self._start,
            capacity=options.workers,
        )
        self.reconciler = GatewayReconciler(
            GATEWAY,
            Lead(self.database, GATEWAY),
            Recorder(GATEWAY, self.policy, world.events, self.workers, world.clock),
            self.workers,
            self.metrics,
            clock=world.clock,
            beside=Beside(self.auditor, self.replayer),
            is_counted=options.is_counted,
        )
        add_gateways(self.database, [GATEWAY])
        self.scheduler.add([self.reconciler])
        self.auditor.plan()
        self.next_step = world.clock.monotonic()
        self.is_dead = False
        self.stalled_until = 0.0
        self._turns: list[Turn] = []

    def _start(self, work: Callable[[], None]) -> None:
        """Schedule a call's end; a probe takes as long as it waits."""
        world, kind = self.world, getattr(work, "func", None)
        if kind == self.workers._probe:
            self._turns.append(Turn(world.later, work))
            world.later(0.0, self._turns[-1].resume)
        elif kind == self.workers._list:
            # The call takes effect at its end.
            world.later(world.options.list_takes, work)
        else:
            world.in_flight += 1
            world.most_in_flight = max(world.most_in_flight, world.in_flight)
            world.later(world.options.call_takes, partial(self._end_call, work))

    def _end_call(self, work: Callable[[], None]) -> None:
        self.world.in_flight -= 1
        work()

    def step(self) -> None:
        """Run the hook's scheduler once."""
        clock = self.world.clock
        if self.is_dead or clock.monotonic() < self.stalled_until:
            return
        try:
            pause = self.scheduler.run_once()
        except StateError:
            logging.getLogger(__name__).exception("state")
            pause = 2.0
        self.next_step = clock.monotonic() + max(pause, 0.001)

    def die(self) -> None:
        """Stop the hook at once, and lose its memory."""
        self.is_dead = True
        for turn in self._turns:
            turn.die()
        self.database.close()


class World:
    """Hooks, state and gateway in one thread."""

    def __init__(
        self,
        folder: Path,
        options: Options | None = None,
        *,
        hooks: int = 1,
        url: sa.URL | None = None,
        clock: WorldClock | None = None,
        client: Gateway | None = None,
    ) -> None:
        """``client`` replaces the FakeGateway."""
        self.options = options or Options()
        self.clock = clock or WorldClock()
        self.url = url or state_url(folder)
        self._has_tables = url is None
        self.events = EventLog(folder / "hook.log")
        self.log_file = folder / "hook.log"
        self.gateway = FakeGateway(self.clock, can_query=self.options.can_query)
        self.client = client or self.gateway
        self.messages = FakeMessages(self.clock)
        self.consumer = FakeConsumer()
        self.gateway.carry = self.messages.carry
        self.in_flight = self.most_in_flight = 0
        """Calls of all hooks, without lists."""
        self._commits = 0
        self._order = itertools.count()
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self.hooks = [WorldHook(self, f"hook{number}") for number in range(hooks)]

    def note_commit(self, _connection: object) -> None:
        self._commits += 1

    def open(self) -> Database:
        """Open the state; the world's own file already has its tables."""
        if self._has_tables:
            return Database(self.url, lambda _engine: None, clock=self.clock)
        return open_state(self.url, clock=self.clock)

    @property
    def hook(self) -> WorldHook:
        return self.hooks[0]

    def close(self) -> None:
        for hook in self.hooks:
            hook.die()

    def restart(self, index: int = 0) -> WorldHook:
        """Kill a hook, and start another in its place."""
        self.hooks[index].die()
        self.hooks[index] = WorldHook(self, f"{self.hooks[index].name}+")
        return self.hooks[index]

    # Inputs.

    def alert(
        self, channel: str = "loja", cause: RepairCause = RepairCause.DISCONNECTED, *, to: int = 0
    ) -> Disposition:
        (disposition,) = self.hooks[to].writer.accept([firing(channel, cause)])
        return disposition

    def resolve(self, channel: str = "loja", *, to: int = 0) -> Disposition:
        (disposition,) = self.hooks[to].writer.accept([resolved(channel)])
        return disposition

    def put(self, channel: str = "loja", status: Status = Status.CONNECTED) -> None:
        self.gateway.statuses[channel] = status

    def message(self, channel: str = "loja") -> None:
        self.messages.came[channel_key(channel)] = self.clock.time()

    # Time.

    def later(self, seconds: float, work: Callable[[], object]) -> None:
        heapq.heappush(self._later, (self.clock.monotonic() + seconds, next(self._order), work))

    def run(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        """Advance the clock, and run everything that becomes due."""
        end = self.clock.seconds + seconds
        while not until():
            for hook in self.hooks:
                if hook.scheduler._wanted.is_set() or hook.next_step <= self.clock.seconds:
                    hook.scheduler._wanted.clear()
                    hook.step()
            moments = [hook.next_step for hook in self.hooks if not hook.is_dead]
            moments += [self._later[0][0]] if self._later else []
            moment = max(self.clock.seconds, min([end, *moments]))
            if any(hook.scheduler._wanted.is_set() for hook in self.hooks):
                moment = min(moment, self.clock.seconds + 0.001)
            if moment >= end:
                if not until():
                    self.clock.seconds = end
                break
            self.clock.seconds = max(moment, self.clock.seconds + 0.001)
            while self._later and self._later[0][0] <= self.clock.seconds:
                heapq.heappop(self._later)[2]()

    def skip(self, seconds: float) -> None:
        """Advance the clock without running anything."""
        self.clock.seconds += seconds

    # Results.

    def row(self, channel: str = "loja") -> ChannelRow | None:
        key = channel_key(channel)
        with self.hook.database.read() as connection:
            return read_rows(connection, GATEWAY, [key]).get(key)

    def ended(self, channel: str = "loja") -> list[Attempt]:
        """Return a channel's ended repairs, the oldest first."""
        return self.hook.history.of_channel(channel_key(channel))[::-1]

    def repair(
        self, channel: str = "loja", cause: RepairCause = RepairCause.DISCONNECTED
    ) -> Attempt:
        """Send a firing alert, and return the repair that ends next."""
        before = len(self.ended(channel))
        seen = 0

        def has_ended() -> bool:
            nonlocal seen
            if seen == self._commits:  # the query would take a third of the time
                return False
            seen = self._commits
            return len(self.ended(channel)) > before

        self.alert(channel, cause)
        self.run(1000, until=has_ended)
        return self.ended(channel)[before]

    def value(self, name: str, **labels: str) -> float | None:
        return self.hook.metrics.registry.get_sample_value(name, labels)

    def outcomes(self, channel: str = "loja") -> list[str]:
        return [str(attempt.outcome) for attempt in self.ended(channel)]

    def lines(self) -> list[str]:
        return self.log_file.read_text().splitlines()
