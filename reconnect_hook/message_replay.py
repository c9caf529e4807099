"""Delivers missed messages again, to the webhook MESSAGE_REPLAY_URL.

The state records each message before it is sent: if the program dies in between, the record
keeps the message from being sent twice.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from reconnect_hook.event_log import EventLog
from reconnect_hook.message_audit import (
    SECOND_SECONDS,
    AuditWish,
    GatewayAudits,
    Replay,
    want_audits,
)
from reconnect_hook.schema import gateway, message_audit, missed_message
from reconnect_hook.workers import OneAtATime, StartThread, start_thread
from zapwatch.channels import Channel, channel_key
from zapwatch.db import StateError, now, transaction
from zapwatch.gateways.base import Gateway, GatewayError
from zapwatch.http import HttpClient, HttpError, one_line
from zapwatch.messages.message import MessageLogError, Wanted
from zapwatch.messages.source import MessageSource

_log = logging.getLogger("reconnect_hook")

HEADER = "X-Zapwatch-Replay"
"""Header of repeated deliveries."""
OLDEST_SECONDS = 3 * 86_400.0
"""Older messages are not delivered again."""
PAUSE_SECONDS = 0.2
"""Pause between two deliveries."""
ANSWER_SECONDS = 10.0
"""Timeout of the webhook."""
MOST_REFUSED = 3
"""Consecutive refusals, after which the rest waits for a new request or the next audit."""
CLAIM_SECONDS = 300.0
"""Time until another program takes over a dead one's delivery."""
_TOGETHER = 100  # messages read into memory at once
_MOST_BYTES = 1024 * 1024  # of an answer; only its status is used

DIED = "the program that sent it ended before the answer"
_AGAIN = (Replay.REFUSED, Replay.GONE)


class Consumer:
    """The webhook that receives the messages."""

    def __init__(
        self, url: str, token: str, headers: Callable[[str, bytes], Mapping[str, str]]
    ) -> None:
        """``headers`` returns the authentication headers for a token and a body."""
        self._url = url
        self._token = token
        self._headers = headers

    def post(self, channel: str, event: Mapping[str, Any]) -> tuple[Replay, str]:
        """Post a channel's event; return the result, and the reason of a failure."""
        body = json.dumps(event).encode()
        trust = self._headers(self._token, body) if self._token else {}
        headers = {"Content-Type": "application/json", HEADER: "true", **trust}
        url = self._url.replace("{session}", quote(channel, safe=""))
        client = HttpClient(url, max_bytes=_MOST_BYTES)
        try:
            answer = client.request("POST", "", ANSWER_SECONDS, headers=headers, body=body)
        except HttpError as error:
            words = one_line(error.detail, secrets=(url, self._token))
            return Replay.UNKNOWN if error.sent else Replay.REFUSED, words
        finally:
            client.close()
        if answer.is_success:
            return Replay.DELIVERED, ""
        # At a proxy's time-out, the webhook behind it may have taken the message.
        is_late = answer.status == HTTPStatus.GATEWAY_TIMEOUT
        # The answer's body may repeat the message, so only the status is used.
        return Replay.UNKNOWN if is_late else Replay.REFUSED, f"HTTP {answer.status}"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim on a channel's deliveries until a Unix time.

    Each delivery renews it; long reads do from ``renew_at`` of the monotonic clock.
    """

    key: str
    channel: str
    until: float
    renew_at: float


class LostClaimError(Exception):
    """Another program holds the claim."""


class ReplayRepository(GatewayAudits):
    """One gateway's deliveries in the state; each method raises StateError."""

    @transaction
    def want(self, connection: sa.Connection, channel: str) -> None:
        """Queue a delivery of missed messages on a person's request, also of refused ones."""
        key = channel_key(channel)
        due = message_audit.c.replay_at.is_(None)
        want = sa.update(message_audit).where(*self._audit(key), due)
        connection.execute(want.values(replay_at=now(connection)))
        row = missed_message.c
        refused = (*self._missed(key), row.replay.in_(_AGAIN), row.arrived_at.is_(None))
        connection.execute(sa.update(missed_message).where(*refused).values(replay=None))

    @transaction
    def claim(self, connection: sa.Connection, only: str | None = None) -> Claim | None:
        """Claim a channel with a queued delivery, unless another of the gateway is claimed.

        Messages that a dead program was sending become UNKNOWN.
        """
        # Without the lock, two concurrent claims could take two channels.
        mine = gateway.c.gateway == self._gateway
        connection.execute(sa.select(gateway.c.gateway).where(mine).with_for_update())
        at = now(connection)
        row = message_audit.c
        wanted = sa.select(row.key, row.channel, row.replay_at).where(
            row.gateway == self._gateway, row.replay_at.is_not(None)
        )
        found = connection.execute(wanted.order_by(row.replay_at)).all()
        if any(at < one.replay_at <= at + CLAIM_SECONDS for one in found):
            return None
        one = next((one for one in found if only in {None, one.key}), None)
        if one is None:
            return None
        claim = self._claim_at(at, one.key, one.channel)
        claimed = sa.update(message_audit).where(*self._audit(one.key))
        connection.execute(claimed.values(replay_at=claim.until))
        sending = (*self._missed(one.key), missed_message.c.replay == Replay.SENDING)
        connection.execute(
            sa.update(missed_message)
            .where(*sending)
            .values(replay=Replay.UNKNOWN, replay_detail=DIED)
        )
        return claim

    def _claim_at(self, at: float, key: str, channel: str) -> Claim:
        renew_at = self._database.clock.monotonic() + CLAIM_SECONDS / 3
        return Claim(key, channel, at + CLAIM_SECONDS, renew_at)

    def renew(self, claim: Claim) -> Claim:
        """Renew a claim if it is time; raise LostClaimError."""
        if self._database.clock.monotonic() < claim.renew_at:
            return claim
        return self._database.transact(lambda connection: self._renew(connection, claim))

    def _renew(self, connection: sa.Connection, claim: Claim) -> Claim:
        renewed = self._claim_at(now(connection), claim.key, claim.channel)
        held = (*self._audit(claim.key), message_audit.c.replay_at == claim.until)
        update = sa.update(message_audit).where(*held).values(replay_at=renewed.until)
        if connection.execute(update).rowcount != 1:
            raise LostClaimError
        return renewed

    def waiting(self, key: str) -> dict[str, float]:
        """Return the ids and times of the next messages to deliver, the oldest first."""
        row = missed_message.c
        with self._database.read() as connection:
            query = sa.select(row.id, row.at).where(
                *self._missed(key),
                row.replay.is_(None),
                row.arrived_at.is_(None),
                row.at >= now(connection) - OLDEST_SECONDS,
            )
            found = connection.execute(query.order_by(row.at, row.id).limit(_TOGETHER))
            return {one.id: one.at for one in found}

    @transaction
    def begin(self, connection: sa.Connection, claim: Claim, id_: str) -> tuple[Claim, bool]:
        """Renew the claim, and record a message before it is sent; False: do not send it.

        Raises LostClaimError.
        """
        renewed = self._renew(connection, claim)
        row = missed_message.c
        free = (*self._missed(claim.key), row.id == id_, row.replay.is_(None))
        at = now(connection)
        values = {"replay": Replay.SENDING, "replayed_at": at, "replay_detail": ""}
        noted = sa.update(missed_message).where(*free, row.arrived_at.is_(None))
        return renewed, connection.execute(noted.values(values)).rowcount == 1

    @transaction
    def end(
        self, connection: sa.Connection, key: str, ids: Collection[str], result: Replay, detail: str
    ) -> None:
        """Record the result of messages."""
        row = missed_message.c
        done = (*self._missed(key), row.id.in_(ids))
        # A program wrongly taken for dead overwrites UNKNOWN with the actual result.
        open_ = row.replay.is_(None) | row.replay.in_([Replay.SENDING, Replay.UNKNOWN])
        at = now(connection)
        values = {"replay": result, "replayed_at": at, "replay_detail": detail[:250]}
        connection.execute(sa.update(missed_message).where(*done, open_).values(values))

    @transaction
    def note_arrived(self, connection: sa.Connection, key: str, ids: Collection[str]) -> None:
        """Record the late arrival of messages."""
        mine = (*self._missed(key), missed_message.c.id.in_(ids))
        update = sa.update(missed_message).where(*mine)
        connection.execute(update.values(arrived_at=now(connection)))

    @transaction
    def finish(
        self,
        connection: sa.Connection,
        claim: Claim,
        why: str | None,
        *,
        again: bool,
        audits: bool,
    ) -> None:
        """End a claim; ``again``: leave it due for another program.

        ``why`` some messages were left is stored, None if nothing was done. ``audits``: audits
        follow, as they do after what a dead program has delivered.
        """
        at = now(connection)
        held = (*self._audit(claim.key), message_audit.c.replay_at == claim.until)
        values: dict[str, Any] = {"replay_at": at if again else None}
        values |= {} if why is None else {"replay_why": why[:500]}
        connection.execute(sa.update(message_audit).where(*held).values(values))
        row = missed_message.c
        left = sa.case((row.arrived_at.is_(None) & (row.at >= at - OLDEST_SECONDS), row.at))
        times = (sa.func.min(left), sa.func.max(row.replayed_at), sa.func.max(row.arrived_at))
        query = sa.select(*times).where(*self._missed(claim.key))
        since, *changed = connection.execute(query).one()
        mine = self._audit(claim.key)
        audited_at = connection.scalar(sa.select(message_audit.c.audited_at).where(*mine)) or 0.0
        if audits or any(audited_at < (one or 0.0) <= at for one in changed):
            wish = AuditWish(claim.channel, at if since is None else since)
            # A second one, since the first may find messages still in transit. With "auto", the
            # first one would have the rest sent at once to a webhook that takes none.
            delays = (SECOND_SECONDS if why else 0.0, SECOND_SECONDS)
            want_audits(connection, self._gateway, [wish], at, delays=delays)


@dataclass(slots=True)
class _Run:
    """One channel's delivery: the current claim, and the results so far."""

    claim: Claim
    messages: MessageSource
    consumer: Consumer
    results: Counter[Replay] = field(default_factory=Counter)
    refused: int = 0
    """Consecutive refusals."""
    why: str = ""
    cannot_know: bool = False
    """Whether the gateway cannot list some, now or later."""


class MessageReplayer:
    """Delivers one gateway's missed messages again, one message at a time."""

    def __init__(
        self,
        repository: ReplayRepository,
        client: Gateway,
        messages: MessageSource | None,
        consumer: Consumer | None,
        events: EventLog,
        count: Callable[[str, Replay], None],
        *,
        start: StartThread = start_thread,
    ) -> None:
        """``consumer`` is None without MESSAGE_REPLAY_URL.

        ``count`` is called for each message with a result.
        """
        self._repository = repository
        self._client = client
        self._messages = messages
        self._consumer = consumer
        self._events = events
        self._count = count
        self._threads = OneAtATime(start)
        self._stopped = threading.Event()

    @property
    def why_not(self) -> str:
        """Why deliveries are impossible, empty if they are possible."""
        if self._consumer is None:
            return "MESSAGE_REPLAY_URL is not set"
        if not self._client.lists_messages or self._messages is None:
            return "this gateway lists no messages, or there is neither a message log nor events"
        if not self._client.makes_events:
            return "what this gateway lists of a message is not the event that it posts"
        return ""

    def want(self, channel: str, address: str | None) -> None:
        """Queue a delivery on a person's request; raise StateError."""
        self._repository.want(channel)
        self._events.write(channel=channel, action="replay", outcome="asked", address=address)

    def begin(self) -> None:
        """Run due deliveries in a thread, unless one is running; without one, they stay due."""
        if not self.why_not:
            self._threads.begin(self._work)

    def stop(self) -> None:
        """Stop after the current message."""
        self._stopped.set()

    def _work(self) -> None:
        try:
            while not self._stopped.is_set() and (claim := self._repository.claim()):
                self._deliver(claim)
        except StateError as error:
            _log.warning("missed messages cannot be delivered: %s; trying again", error)
        except Exception:  # noqa: BLE001
            _log.exception("a delivery of missed messages failed: internal error")

    def run_now(self, channel: Channel) -> tuple[Counter[Replay], str] | None:
        """Deliver a channel's missed messages now; None if another delivery is running.

        Returns the number of messages by result, and why some were left; raises StateError.
        """
        if self.why_not:
            return Counter(), self.why_not
        self._repository.want(channel.id)
        claim = self._repository.claim(channel.key)
        return None if claim is None else self._deliver(claim)

    def _deliver(self, claim: Claim) -> tuple[Counter[Replay], str]:
        if self._messages is None or self._consumer is None:
            return Counter(), self.why_not
        run = _Run(claim, self._messages, self._consumer)
        try:
            while (
                not run.why
                and not self._stopped.is_set()
                and (batch := self._repository.waiting(claim.key))
            ):
                channels = self._client.list_channels().channels
                channel = next((one for one in channels if one.key == claim.key), None)
                if channel is None:
                    run.why = "the gateway lists no such channel"
                else:
                    self._deliver_batch(run, channel, batch)
        except (GatewayError, MessageLogError) as error:
            run.why = str(error)
        except LostClaimError:
            run.why = "another program continues it"
        stopped = self._stopped.is_set() and not run.why
        why = run.why if run.results or run.why else None
        audits = bool(run.results) or (bool(run.why) and not run.cannot_know)
        self._repository.finish(run.claim, why, again=stopped, audits=audits)
        if why is not None:
            self._events.write(
                channel=claim.channel,
                action="replay",
                outcome="ended",
                **{str(result): count for result, count in run.results.items()},
                detail=run.why or None,
            )
        return run.results, run.why

    def _deliver_batch(self, run: _Run, channel: Channel, batch: Mapping[str, float]) -> None:
        """Deliver those messages of a batch that have still not arrived, the oldest first."""
        key, since, until = run.claim.key, min(batch.values()), max(batch.values())

        def go_on() -> None:
            run.claim = self._repository.renew(run.claim)

        def among(ids: Collection[str]) -> Collection[str]:
            go_on()
            return set(left).intersection(ids)

        delivered = run.messages.delivered([channel], since, go_on)
        arrived = delivered.among(channel.key, batch)
        if arrived:
            self._repository.note_arrived(key, arrived)
        left = [id_ for id_ in batch if id_ not in arrived]
        received = self._client.received(channel, Wanted(since, until, among, events=True))
        for id_ in left:
            if run.why or self._stopped.is_set():
                return
            event = received.events.get(id_)
            if event is not None:
                self._send(run, channel, id_, event)
        gone = [] if run.why else [id_ for id_ in left if id_ not in received.events]
        if gone and received.cannot_know:
            run.why, run.cannot_know = received.cannot_know, True
        elif gone:
            self._end(run, channel, gone, Replay.GONE, "the gateway no longer has it")

    def _send(self, run: _Run, channel: Channel, id_: str, event: Mapping[str, Any]) -> None:
        event = self._client.with_media(channel, event)
        run.claim, is_noted = self._repository.begin(run.claim, id_)
        if not is_noted:
            return
        result, detail = run.consumer.post(channel.id, event)
        self._end(run, channel, [id_], result, detail)
        run.refused = run.refused + 1 if result is Replay.REFUSED else 0
        if result is Replay.UNKNOWN or run.refused == MOST_REFUSED:
            run.why = f"the webhook does not take them: {detail}"
        self._stopped.wait(PAUSE_SECONDS)

    def _end(
        self, run: _Run, channel: Channel, ids: Collection[str], result: Replay, detail: str
    ) -> None:
        self._repository.end(run.claim.key, ids, result, detail)
        run.results[result] += len(ids)
        for _ in ids:
            self._count(channel.id, result)
