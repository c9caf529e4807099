"""Hooks, their state and a gateway in one thread and on one clock, which moves as a test wants."""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from reconnect_hook.alert_writer import AlertWriter
from reconnect_hook.alerts import RepairCause
from reconnect_hook.audit_log import EventLog
from reconnect_hook.backoff import Backoff
from reconnect_hook.context import ProbeContext
from reconnect_hook.decision import Policy
from reconnect_hook.dedup import Disposition
from reconnect_hook.history import Attempt, RepairHistory
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.migrate import open_state
from reconnect_hook.models import Action, ChannelState
from reconnect_hook.operator_actions import OperatorActions
from reconnect_hook.probe_limits import ProbeRepository
from reconnect_hook.reconciler import GatewayReconciler
from reconnect_hook.recorder import Recorder
from reconnect_hook.repository import Lead, read_rows
from reconnect_hook.scheduler import Scheduler
from reconnect_hook.workers import Workers
from tests.support.states import firing, resolved, sqlite_url
from zapwatch.channels import Channel, Status, channel_key
from zapwatch.clock import Clock
from zapwatch.config.gateway import ProbeKind
from zapwatch.config.settings import ProbeSettings
from zapwatch.db import StateError
from zapwatch.gateways.base import (
    ChannelList,
    Gateway,
    GatewayError,
    GatewayErrorKind,
    Operation,
    QrAnswer,
    QrKind,
)
from zapwatch.messages.log_tailer import RecentMessages
from zapwatch.messages.webhook_log import MessageLogError

GATEWAY = "wpp"


class WorldClock(Clock):
    """A clock that stands still until it is moved; ``jumped`` is what the wall clock is ahead."""

    def __init__(self) -> None:
        self.seconds = 5_000.0
        self.jumped = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def time(self) -> float:
        return 1_700_000_000.0 + self.seconds + self.jumped


class FakeGateway(Gateway):
    """A gateway whose channels, answers and failures stand in its attributes."""

    usual_port = 0
    hints: Mapping[GatewayErrorKind, str] = {}  # type: ignore[misc]
    reconnect_call = "getQr"

    def __init__(self, clock: WorldClock) -> None:
        super().__init__("http://gateway.example.com", "not-a-real-secret")
        self.clock = clock
        self.statuses: dict[str, Status] = {}
        self.calls: list[tuple[str, str, float]] = []
        """Each call: its name, the channel's id and the moment."""
        self.lists = 0
        self.list_error: GatewayErrorKind | None = None
        self.call_error: GatewayErrorKind | None = None
        self.answer = QrKind.ACCEPTED
        self.on_call: Callable[[str, str], None] = lambda _call, _channel: None
        self.flags: list[tuple[bool, bool]] = []
        """Of each reconnect(): silent, stuck."""

    def calls_of(self, channel: str) -> list[str]:
        """Return the names of the calls about a channel."""
        return [name for name, about, _ in self.calls if about == channel]

    def list_channels(self) -> ChannelList:
        self.lists += 1
        if self.list_error is not None:
            raise GatewayError(Operation.LIST, self.list_error, "made up")
        return ChannelList(tuple(Channel(name, status) for name, status in self.statuses.items()))

    def _called(self, name: str, operation: Operation, channel: str) -> QrAnswer:
        self.calls.append((name, channel, self.clock.monotonic()))
        if self.call_error is not None:
            raise GatewayError(operation, self.call_error, "made up")
        self.on_call(name, channel)
        return QrAnswer(self.answer)

    def reconnect(self, channel: Channel, *, silent: bool, stuck: bool = False) -> QrAnswer:
        self.flags.append((silent, stuck))
        return self._called("reconnect", Operation.RECONNECT, channel.id)

    def qr(self, channel_id: str) -> QrAnswer:
        return self._called("qr", Operation.QR, channel_id)

    def start_session(self, channel_id: str) -> None:
        self._called("start_session", Operation.START_SESSION, channel_id)

    def delete(self, channel_id: str) -> None:
        self._called("delete", Operation.DELETE, channel_id)

    def create(self, channel_id: str) -> None:
        self._called("create", Operation.CREATE, channel_id)

    def query(self, channel: Channel) -> None:
        self._called("query", Operation.QUERY, channel.id)

    def send_text(self, channel: Channel, number: str, text: str) -> str | None:
        self._called("send_text", Operation.SEND, channel.id)
        return None


class FakeMessages:
    """A source whose last messages stand in ``came``: the wall clock's moments by channel key."""

    def __init__(self, clock: WorldClock) -> None:
        self._clock = clock
        self.came: dict[str, float] = {}
        self.is_down = False

    def recent(self, seconds: float) -> RecentMessages:
        if self.is_down:
            raise MessageLogError("made up")
        ages = {key: self._clock.time() - at for key, at in self.came.items()}
        return RecentMessages({key: age for key, age in ages.items() if age <= seconds})


@dataclass(frozen=True)
class Options:
    """What a world is like; seconds."""

    cooldown: float = 300.0
    verify: float = 60.0
    threshold: float = 14_400.0
    workers: int = 4
    list_takes: float = 0.1
    call_takes: float = 0.2
    allow_restart: bool = False
    keeps_channel: bool = False
    probe: ProbeSettings = field(
        default_factory=lambda: ProbeSettings(ProbeKind.OFF, {}, 60.0, 15.0, 6, {}, "ping")
    )


class WorldHook:
    """One hook of a world."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        options = world.options
        self.database = open_state(world.url, clock=world.clock)
        backoff = Backoff(options.cooldown)
        self.scheduler = Scheduler(self.database)
        self.metrics = HookMetrics()
        self.history = RepairHistory(self.database, GATEWAY, backoff)
        self.metrics.watch(GATEWAY, self.history)
        self.writer = AlertWriter(self.database, GATEWAY, backoff, self.scheduler.wake)
        self.actions = OperatorActions(self.database, GATEWAY, self.writer, self.scheduler.wake)
        book = ProbeRepository(self.database, GATEWAY, options.probe)
        self.probing = ProbeContext(world.gateway, None, book, options.probe)
        self.policy = Policy(
            backoff,
            options.verify,
            lambda _channel: options.threshold,
            Action.GET_QR,
            allow_restart=options.allow_restart,
            keeps_channel=options.keeps_channel,
            probe_kind=self.probing.kind_of,
            probe_after=options.probe.after_minutes * 60,
            probe_pause=options.probe.pause_minutes * 60,
        )
        self.workers = Workers(
            world.gateway,
            self.probing,
            lambda _listed: world.messages,  # type: ignore[arg-type, return-value]
            self.scheduler.notify,
            world.clock,
            self._start,
        )
        self.reconciler = GatewayReconciler(
            GATEWAY,
            Lead(self.database, GATEWAY),
            Recorder(GATEWAY, self.policy, world.events, world.clock),
            self.workers,
            self.metrics.of(GATEWAY),
            most_calls=options.workers,
            clock=world.clock,
        )
        self.scheduler.add([self.reconciler])
        self.next_step = world.clock.monotonic()
        self.is_dead = False
        self.stalled_until = 0.0

    def _start(self, work: Callable[[], None]) -> None:
        """Let a call end when its time has passed."""
        # A list is asked for as it begins; what a call does, it does at its end.
        is_list = getattr(work, "func", None) == self.workers._list
        options = self.world.options
        self.world.later(options.list_takes if is_list else options.call_takes, work)

    def step(self) -> None:
        """Let the hook do what is due."""
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
        """Do nothing any more, and lose all that is in memory."""
        self.is_dead = True
        self.database.close()


class World:
    """Everything, in one thread."""

    def __init__(
        self,
        folder: Path,
        options: Options | None = None,
        *,
        hooks: int = 1,
        url: sa.URL | None = None,
    ) -> None:
        self.options = options or Options()
        self.clock = WorldClock()
        self.url = url or sqlite_url(folder)
        self.events = EventLog(folder / "hook.log")
        self.log_file = folder / "hook.log"
        self.gateway = FakeGateway(self.clock)
        self.messages = FakeMessages(self.clock)
        self._order = itertools.count()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self.hooks = [WorldHook(self, f"hook{number}") for number in range(hooks)]

    @property
    def hook(self) -> WorldHook:
        """The first hook."""
        return self.hooks[0]

    def close(self) -> None:
        """Close the states."""
        for hook in self.hooks:
            hook.database.close()

    def restart(self, index: int = 0) -> WorldHook:
        """Let a hook die, and another begin in its place."""
        self.hooks[index].die()
        self.hooks[index] = WorldHook(self, f"{self.hooks[index].name}+")
        return self.hooks[index]

    # Inputs.

    def alert(
        self, channel: str = "loja", cause: RepairCause = RepairCause.DISCONNECTED, *, to: int = 0
    ) -> Disposition:
        """Let an alert fire."""
        (disposition,) = self.hooks[to].writer.accept([firing(channel, cause)])
        return disposition

    def resolve(
        self, channel: str = "loja", cause: RepairCause = RepairCause.DISCONNECTED, *, to: int = 0
    ) -> Disposition:
        """Let an alert end."""
        (disposition,) = self.hooks[to].writer.accept([resolved(channel, cause)])
        return disposition

    def put(self, channel: str = "loja", status: Status = Status.CONNECTED) -> None:
        """Let the gateway say something else of a channel."""
        self.gateway.statuses[channel] = status

    def message(self, channel: str = "loja") -> None:
        """Let a message come in."""
        self.messages.came[channel_key(channel)] = self.clock.time()

    # Time.

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        """Do something when some time has passed."""
        heapq.heappush(self._later, (self.clock.monotonic() + seconds, next(self._order), work))

    def run(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, and everybody do what is due meanwhile."""
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
                break
            self.clock.seconds = max(moment, self.clock.seconds + 0.001)
            while self._later and self._later[0][0] <= self.clock.seconds:
                heapq.heappop(self._later)[2]()
        if not until():
            self.clock.seconds = end

    def skip(self, seconds: float) -> None:
        """Let time pass in which nobody does anything."""
        self.clock.seconds += seconds

    # What came of it.

    def row(self, channel: str = "loja") -> ChannelState | None:
        """Return a channel's row."""
        key = channel_key(channel)
        with self.hook.database.read() as connection:
            return read_rows(connection, GATEWAY, [key]).get(key)

    def ended(self, channel: str = "loja") -> list[Attempt]:
        """Return a channel's repairs that ended, the oldest first."""
        return self.hook.history.of_channel(channel_key(channel))[::-1]

    def outcomes(self, channel: str = "loja") -> list[str]:
        """Return how a channel's repairs ended, the oldest first."""
        return [str(attempt.outcome) for attempt in self.ended(channel)]

    def lines(self) -> list[str]:
        """Return the lines of the log."""
        return self.log_file.read_text().splitlines()
