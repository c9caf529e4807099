"""Writes message rows for the channels that are alive, as the webhook would."""

import random
import threading
import time
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, make_url

from demo.simulator.apis.whapi import WhapiApi
from demo.simulator.messages import SimulatedMessage
from demo.simulator.model import SimulatedGateway
from demo.simulator.payloads import (
    INCOMING_EVENTS,
    OTHER_EVENTS,
    OUTGOING_EVENTS,
    PLACES,
    message_payload,
    other_payload,
)
from demo.simulator.schema import create_message_log, insert_message

_MARIADB_TIMEOUTS = {"connect_timeout": 3, "read_timeout": 5, "write_timeout": 5}
_WAIT_SECONDS = 0.5
# A separate generator: other code in this process may rely on the global sequence.
_chance = random.Random()


def open_message_log(url: str) -> Engine:
    """Create a message log's engine, with timeouts of 3 to 5 s for an unavailable database."""
    timeouts = {"timeout": 5} if make_url(url).get_backend_name() == "sqlite" else _MARIADB_TIMEOUTS
    return create_engine(url, connect_args=timeouts, pool_pre_ping=True)


class Traffic:
    """A thread that writes to the message log at an interval and survives database errors.

    Each round creates one message for each channel that is alive and not quiet, and writes one
    event that proves nothing for each channel that is listed as connected. Messages sent by the
    API are written too, even while the rounds are paused.
    """

    def __init__(
        self,
        gateway: SimulatedGateway,
        engine: Engine | None,
        seconds: float,
        api: str = "wrapper",
    ) -> None:
        """Write rows as PixelHub does: Whapi's own events, and the wrapper's for all others."""
        self._of_whapi = api == "whapi"
        self._gateway = gateway
        self._engine = engine
        self._seconds = seconds
        self._paused = False
        self._rounds = 0
        self._messages = 0
        self._last_error: str | None = None
        self._table_is_there = False
        self._due = False
        self._stopping = False
        self._unwritten: list[SimulatedMessage] = []
        self._changed = threading.Condition()
        self._first_round = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(engine,), name="traffic", daemon=True
        )

    def start(self, *, also_without_log: bool = False) -> None:
        """Start, and wait up to 0.5 s for the first round, so that the table exists.

        Without a log, rounds run only if another listener needs the messages.
        """
        if self._thread.is_alive() or not (self._engine is not None or also_without_log):
            return
        if self._engine is not None:
            self._gateway.births.listen(self._note)
        self._thread.start()
        if self._engine is not None:
            self._first_round.wait(_WAIT_SECONDS)

    def stop(self) -> None:
        """Stop after the current round; wait at most 0.5 s for it."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(_WAIT_SECONDS)

    def set(self, *, seconds: float | None = None, paused: bool | None = None) -> None:
        """Change the interval, pause or resume; the next round follows at once."""
        with self._changed:
            self._seconds = self._seconds if seconds is None else seconds
            self._paused = self._paused if paused is None else paused
            self._due = True
            self._changed.notify()

    def snapshot(self) -> dict[str, Any]:
        """Describe the traffic for the control API."""
        with self._changed:
            return {
                "seconds": self._seconds,
                "paused": self._paused,
                "message_log": self._engine is not None,
                "rounds": self._rounds,
                "messages": self._messages,
                "last_error": self._last_error,
            }

    def _run(self, engine: Engine | None) -> None:
        next_round = time.monotonic()
        while True:
            with self._changed:
                if self._stopping:
                    break
                paused = self._paused
                due = not paused and (self._due or time.monotonic() >= next_round)
                self._due = False
            if due:
                next_round = time.monotonic() + self._seconds
                self._bear()
            if engine is not None and (due or self._unwritten):
                self._write(engine, whole_round=due)
            self._first_round.set()
            with self._changed:
                self._changed.wait_for(
                    lambda: self._due or self._stopping or self._unwritten,
                    None if paused else max(0.0, next_round - time.monotonic()),
                )
        if engine is not None:
            engine.dispose()

    def _note(self, message: SimulatedMessage) -> None:
        if not self._gateway.posts(message.channel):
            return
        with self._changed:
            self._unwritten.append(message)
            self._changed.notify()

    def _bear(self) -> None:
        """Create a message for each channel that is alive and not quiet."""
        for channel in self._gateway.snapshot():
            if channel["alive"] and not channel["quiet"]:
                outgoing = _chance.random() < 0.5
                self._gateway.births.bear(SimulatedMessage(channel["id"], outgoing=outgoing))

    def _write(self, engine: Engine, *, whole_round: bool) -> None:
        with self._changed:
            born, self._unwritten = self._unwritten, []
        try:
            if not self._table_is_there:
                create_message_log(engine)
                self._table_is_there = True
            with engine.begin() as connection:
                messages = self._insert(connection, born, whole_round=whole_round)
        except Exception as error:  # noqa: BLE001 - the thread must survive every database error
            # Only the type: a driver's message may contain address and user.
            trouble: str | None = type(error).__name__
            self._table_is_there = False
            messages = 0
        else:
            trouble = None
        with self._changed:
            self._rounds += whole_round
            self._messages += messages
            self._last_error = trouble

    def _insert(
        self, connection: Connection, born: list[SimulatedMessage], *, whole_round: bool
    ) -> int:
        if self._of_whapi:
            return self._insert_of_whapi(connection, born, whole_round=whole_round)
        ids = [one["id"] for one in self._gateway.snapshot() if one["status"] == "connected"]
        for channel in ids if whole_round else ():
            kind = _chance.choice(OTHER_EVENTS)
            insert_message(
                connection, channel, event_type=kind, payload=other_payload(channel, kind)
            )
        for message in born:
            channel, kind = _spelling(message.channel), _event_type(message)
            payload = message_payload(
                channel,
                kind,
                place=_chance.choice(PLACES),
                outgoing=message.outgoing,
                words=message.words or f"As I wrote to {_chance.choice(ids or ['you'])} yesterday:",
                id_=message.id,
            )
            insert_message(connection, channel, event_type=kind, payload=payload)
        return len(born)

    def _insert_of_whapi(
        self, connection: Connection, born: list[SimulatedMessage], *, whole_round: bool
    ) -> int:
        """Insert one row per channel: Whapi posts messages that arrive together in one event."""
        for channel in self._gateway.snapshot() if whole_round else ():
            if channel["status"] == "connected":
                _insert_event(connection, WhapiApi.other(channel["id"]))
        events: dict[str, dict[str, Any]] = {}
        for message in born:
            event = WhapiApi.event(message)
            events.setdefault(message.channel, event | {"messages": []})["messages"] += event[
                "messages"
            ]
        for event in events.values():
            _insert_event(connection, event)
        return len(born)


def _insert_event(connection: Connection, event: dict[str, Any]) -> None:
    kind = event["event"]
    name = f"whapi_{kind['type']}_{kind['event']}"
    insert_message(connection, "", event_type=name, payload=event)


def _event_type(message: SimulatedMessage) -> str:
    if message.by_api:
        return "message.sent"
    return _chance.choice(OUTGOING_EVENTS if message.outgoing else INCOMING_EVENTS)


def _spelling(channel: str) -> str:
    """Return the id unchanged, or as the webhook sometimes has it: lower case, no spaces."""
    return _chance.choice((channel, channel.lower().replace(" ", "")))
