"""Adapter of gateways that are described in YAML, see declaration.py."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote

from zapwatch.channels import Channel, Status, is_usable_id
from zapwatch.gateways.base import (
    MAX_CHANNELS,
    QR_KINDS,
    Calls,
    CallsMade,
    ChannelList,
    Failure,
    Gateway,
    GatewayErrorKind,
    GatewayResponse,
    Operation,
    PairingCode,
    QrAnswer,
    QrKind,
    error_message,
)
from zapwatch.gateways.declaration import (
    CallStep,
    Declaration,
    Expression,
    PagedList,
    ReceivedPaths,
    Rule,
    read_file,
)
from zapwatch.gateways.helpers import (
    ChatError,
    Entry,
    in_path,
    is_of_a_chat,
    number_of,
    read_chats,
    read_pairing_code,
    status_of,
    with_statuses,
)
from zapwatch.http import basic_credentials
from zapwatch.messages.message import EventMessage, Received, Wanted, bare_id, seconds_of

_STATUS_SECONDS = 10.0
_PAIRING_SECONDS = 60.0
_STATES = {"disconnected", "stuck", "silent"}
_QR_KINDS = {"accepted": QrKind.ACCEPTED, "starting": QrKind.INITIALIZING}
_ALONE = re.compile(r"\{([^{}]*)\}")


_ODD = "the gateway lists messages without an id or a direction"
_MOST_PAGES = 1000
_PNG = b"\x89PNG\r\n\x1a\n"


class _Listed(NamedTuple):
    """Parts of a channel's entry in the last list that stay within the adapter."""

    id: str
    secret: str
    word: str


class _MeansQrKind(Exception):  # noqa: N818 - a response that is not a failure
    """By a rule, a response reports the channel's state instead of a QR code."""

    def __init__(self, kind: QrKind) -> None:
        super().__init__()
        self.kind = kind


class DeclaredGateway(Gateway):
    """HTTP API by description; adapter_for() creates the class of each description."""

    usual_port: ClassVar = 443
    makes_events: ClassVar = False
    declaration: ClassVar[Declaration]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._listed: dict[str, _Listed] = {}

    def _credentials(self) -> dict[str, str]:
        auth = self.declaration.auth
        if auth.kind == "header":
            return {auth.header: self._secret}
        if auth.kind == "bearer":
            return {"Authorization": f"Bearer {self._secret}"}
        return {"Authorization": f"Basic {basic_credentials(self._secret)}"}

    def _secrets(self) -> list[str]:
        own = [one.secret for one in self._listed.values() if one.secret]
        if self.declaration.auth.kind == "basic":
            own += [self._secret.partition(":")[2], basic_credentials(self._secret)]
        return [*super()._secrets(), *own]

    def list_channels(self) -> ChannelList:
        """Return the channels; if the call for a channel's status fails, it is UNKNOWN."""
        listing = self.declaration.listing
        with self._operation(Operation.LIST) as calls:
            listed = ChannelList.of(map(self._channel, self._entries(calls)))

            def ask(name: str) -> Status:
                return self._status(self._word(calls.within(_STATUS_SECONDS), name))

            return listed if listing.status else with_statuses(listed, ask)

    def reconnect(self, channel: Channel, *, silent: bool, stuck: bool = False) -> QrAnswer:
        """Make the described repair call for the channel's current status."""
        with self._operation(Operation.RECONNECT) as calls:
            word = self._word(calls, channel.id)
            status = self._status(word)
            starting = status is Status.INITIALIZING
            name = None
            if status is Status.CONNECTED and silent:
                name = self._repair("silent")
            elif starting and stuck:
                name = self.declaration.repair.get("stuck")
            elif status is Status.DISCONNECTED:
                name = self._repair(word, "disconnected")
            if starting and name and not self.lists_qr:
                # The session may be waiting for a scan.
                answer = self._code(calls, channel.id)
                if answer.kind is QrKind.QR:
                    return answer
            if name:
                self._run(calls, name, channel.id)
            if name or starting:
                return QrAnswer(QrKind.INITIALIZING)
            return self._answer(calls, channel.id, word)

    def planned_call(self, channel: Channel, *, silent: bool) -> str:
        """Return the steps of the repair call for the channel's listed word."""
        listed = self._listed.get(channel.id)
        states = ["silent"] if silent else [listed.word if listed else "", "disconnected"]
        if channel.status is Status.QR_REQUIRED:
            return ", ".join(map(str, self.declaration.calls["qr"]))
        if channel.status not in {Status.CONNECTED, Status.DISCONNECTED}:
            return "nothing, unless it has been starting for long"
        repair = self.declaration.repair
        name = next((repair[state] for state in states if state in repair), None)
        return ", ".join(map(str, self.declaration.calls[name])) if name else "nothing"

    def qr(self, channel_id: str) -> QrAnswer:
        """Return the current QR code if the channel may be waiting for a scan."""
        with self._operation(Operation.QR) as calls:
            return self._answer(calls, channel_id, self._word(calls, channel_id))

    def pairing_code(self, channel_id: str, phone: str) -> PairingCode:
        """Request a code for a session that waits for a scan; start a disconnected one."""
        with self._operation(Operation.PAIRING_CODE, hide=(phone,)) as calls:
            word = self._start_session(calls, channel_id)
            status = self._status(word)
            if status is Status.DISCONNECTED:
                raise Failure("the session is starting: ask again then")
            waits = status is Status.QR_REQUIRED
            if status is Status.INITIALIZING and not self.lists_qr:
                waits = self._code(calls, channel_id).kind is QrKind.QR
            if not waits:
                raise Failure(f"the gateway has the session in {word}")
            found = self._run(calls, "code", channel_id, number=phone)
            return read_pairing_code(found, _PAIRING_SECONDS)

    def delete(self, channel_id: str) -> None:
        """Make the call ``lose_pairing``. THE PAIRING IS LOST."""
        with self._operation(Operation.DELETE) as calls:
            self._run(calls, "lose_pairing", channel_id)

    def create(self, channel_id: str) -> None:
        """Make the call ``create``, or without one the call for a disconnected channel."""
        with self._operation(Operation.CREATE) as calls:
            if "create" in self.declaration.calls:
                self._run(calls, "create", channel_id)
            else:
                self._start_session(calls, channel_id)

    def query(self, channel: Channel) -> None:
        """Make the call that requires a response of WhatsApp's servers."""
        number = self.own_number(channel) or ""
        with self._operation(Operation.QUERY, hide=(number,)) as calls:
            if not number:
                raise Failure("the gateway does not report the session's own number")
            self._run(calls, "query", channel.id, number=number)

    def own_number(self, channel: Channel) -> str | None:
        """Request the number if there is a call for it, otherwise return the listed one."""
        step = self.declaration.number
        if step is None:
            return channel.number
        with self._operation(Operation.NUMBER) as calls:
            number = number_of(self._step(calls, "number", step, self._of(calls, channel.id)))
            if number is None:
                raise Failure("the session does not report its own number")
            return number

    def send_text(self, channel: Channel, number: str, text: str) -> str | None:
        """Send a text; return the message's id, None if the description has no path to it."""
        with self._operation(Operation.SEND, hide=(number, text)) as calls:
            found = self._run(calls, "send", channel.id, number=number, text=text)
            return found if isinstance(found, str) and found else None

    def take_back(self, channel: Channel, number: str, message_id: str) -> None:
        """Delete one of our messages for both sides."""
        if not self.can_take_back:
            super().take_back(channel, number, message_id)
        with self._operation(Operation.TAKE_BACK, hide=(number,)) as calls:
            self._run(calls, "take_back", channel.id, number=number, message_id=message_id)

    def received(self, channel: Channel, wanted: Wanted) -> Received:
        """List the messages of all chats, or those of each chat that has had one since.

        A gateway that lists nothing at all may keep nothing.
        """
        paths, since = self.declaration.received, wanted.since
        if paths is None:
            return super().received(channel, wanted)
        why = "the gateway lists no message of this channel, new or old"

        def entries(chat: str) -> Iterator[list[Entry]]:
            nonlocal why
            for rows in self._pages(channel.id, "received", paths.messages, since, chat):
                if rows and why != _ODD:
                    why = "" if all(_is_clear(paths, row) for row in rows) else _ODD
                yield [_entry(paths, row) for row in rows]

        chats = [""]
        if paths.chats is not None:
            found = self._pages(channel.id, "chats", paths.chats, since)
            rows = [row for page in islice(found, 1 if wanted.newest else None) for row in page]
            times = [seconds_of(paths.chats.at.of(row)) for row in rows]
            if any(times):
                why = ""
            told = [
                (at, _text(paths.chats.id, row))
                for row, at in zip(rows, times, strict=True)
                if at is not None and at >= since
            ]
            named = dict.fromkeys(chat for _, chat in sorted(told, reverse=True))
            chats = [chat for chat in named if is_usable_id(chat)]
        # The entries are not the gateway's events.
        wanted = replace(wanted, events=False)
        received = read_chats((entries(chat) for chat in chats if is_of_a_chat(chat)), wanted)
        return replace(received, cannot_know=received.cannot_know or why)

    @classmethod
    def read_event(cls, event: Mapping[str, Any]) -> Iterator[EventMessage]:
        """Read an event by the described paths."""
        paths = cls.declaration.events
        if paths is None or not paths.when.of(event):
            return
        items = paths.items.of(event)
        for one in items if isinstance(items, list) else ():
            if isinstance(one, dict):
                yield EventMessage(
                    paths.channel.of(event),
                    paths.at.of(one) if paths.at else None,
                    paths.id.of(one) if paths.id else None,
                    bool(paths.out.of(one)),
                    heard=paths.heard is None or bool(paths.heard.of(one)),
                    entry=one,
                )

    def _pages(
        self, name: str, call: str, paged: PagedList, since: float, chat: str = ""
    ) -> Iterator[list[Any]]:
        """Return the pages of a list until one is older than ``since``, or the list ends."""
        limit, offset = paged.page, 0
        last: list[Any] = []
        while True:
            # An error may name the chat, whose name is a number.
            with self._operation(Operation.MESSAGES, hide=re.findall(r"\d{5,}", chat)) as calls:
                filled = {"limit": str(limit), "offset": str(offset), "chat": chat}
                answer = self._step(calls, call, paged.step, self._of(calls, name) | filled)
                rows = paged.items.of(answer)
                if not isinstance(rows, list):
                    wanted = paged.items.text
                    raise Failure(f"JSON without a list at {wanted}")
                if (rows and rows == last) or offset >= _MOST_PAGES * limit:
                    if chat:  # the other chats may be complete
                        count = len(rows)
                        raise ChatError(f"{count} messages of a chat are listed, and no older ones")
                    raise Failure("the gateway's list has no end")
            last = rows
            yield rows
            times = [at for row in rows if (at := seconds_of(paged.at.of(row))) is not None]
            if paged.names("offset"):
                if not rows or (times and max(times) < since):
                    return
                offset += limit
            elif len(rows) < limit or not paged.names("limit") or min(times, default=0.0) < since:
                return
            else:
                limit *= 4

    def _entries(self, calls: Calls) -> list[Any]:
        """Return the entries of the list's pages, and note each channel's."""
        listing = self.declaration.listing
        entries: list[Any] = []
        page: Any = None
        offset = 0
        while offset <= MAX_CHANNELS:
            filled = {"limit": str(listing.page), "offset": str(offset)}
            last, page = page, listing.items.of(self._step(calls, "list", listing.step, filled))
            if not isinstance(page, list):
                raise Failure(f"JSON without a list at {listing.items.text}")
            if page == last:
                break
            entries += page
            offset += len(page)
            if len(page) < listing.page or "{offset}" not in listing.step.path:
                break
        known: dict[str, _Listed] = {}
        for entry in entries:
            # Of two entries with the same name the first counts, as in ChannelList.of().
            known.setdefault(
                _text(listing.name or listing.id, entry),
                _Listed(
                    _text(listing.id, entry),
                    _text(listing.secret, entry),
                    _text(listing.status, entry),
                ),
            )
        self._listed = known
        return entries

    def _find(self, calls: Calls, name: str) -> _Listed:
        """Return a channel's entry in a new list."""
        self._entries(calls)
        listed = self._listed.get(name)
        if listed is None:
            raise Failure("the gateway lists no such channel", GatewayErrorKind.HTTP)
        return listed

    def _channel(self, entry: Any) -> Channel | None:
        listing = self.declaration.listing
        name, own = _text(listing.name or listing.id, entry), _text(listing.id, entry)
        if not is_usable_id(name) or not is_usable_id(own):
            return None
        return Channel(
            name,
            self._status(listing.status.of(entry)) if listing.status else Status.UNKNOWN,
            number=number_of(listing.number.of(entry)) if listing.number else None,
            activity=seconds_of(listing.activity.of(entry)) if listing.activity else None,
            alias=own if own != name else None,
        )

    def _of(self, calls: Calls, name: str) -> dict[str, str]:
        """Return the placeholders' values for a channel; read the list if it is unknown."""
        in_path(name)  # raises if it is invalid
        listing = self.declaration.listing
        if listing.name is None and listing.secret is None:
            return {"id": name}
        listed = self._listed.get(name) or self._find(calls, name)
        in_path(listed.id)
        return {"id": listed.id, "secret": listed.secret}

    def _word(self, calls: Calls, name: str) -> str:
        """Return a channel's status in the gateway's own word."""
        own = self.declaration.status
        if own is not None:
            word = self._step(calls, "status", own, self._of(calls, name))
            word = word if isinstance(word, str) else ""
            listed = self._listed.get(name)
            if listed is not None:
                self._listed[name] = listed._replace(word=word)
            return word
        in_path(name)  # raises if it is invalid
        return self._find(calls, name).word

    def _start_session(self, calls: Calls, name: str) -> str:
        """Make the repair call for a channel if it is disconnected; return its word before."""
        word = self._word(calls, name)
        if self._status(word) is Status.DISCONNECTED:
            self._run(calls, self._repair(word, "disconnected"), name)
        return word

    def _status(self, word: object) -> Status:
        return status_of(word, self.declaration.statuses)

    def _repair(self, *states: str) -> str:
        """Return the name of the repair call for the first state that has one."""
        repair = self.declaration.repair
        for state in states:
            if state in repair:
                return repair[state]
        raise Failure(f"{self.declaration.name} has no call for a channel that is {states[0]}")

    def _answer(self, calls: Calls, name: str, word: str) -> QrAnswer:
        status = self._status(word)
        if status is Status.UNKNOWN:
            raise Failure(f"a status that is for a person: {word or 'none'}")
        may_wait = status is Status.INITIALIZING and not self.lists_qr
        if status is Status.QR_REQUIRED or may_wait:
            return self._code(calls, name)
        return QrAnswer(QR_KINDS[status])

    def _code(self, calls: Calls, name: str) -> QrAnswer:
        """Return the QR code, or the state that the gateway reports instead."""
        try:
            image = self._run(calls, "qr", name)
        except _MeansQrKind as told:
            return QrAnswer(told.kind)
        form = self.declaration.calls["qr"][-1].form
        if not isinstance(image, str) or not image or (form == "link") != image.startswith("http"):
            raise Failure("JSON without a QR code")
        bare = form in {"base64", "png"}
        return QrAnswer(QrKind.QR, f"data:image/png;base64,{image}" if bare else image)

    def _run(self, calls: Calls, call: str, name: str, **filled: str) -> Any:
        """Run a call's steps; return the value of the last one."""
        found = None
        of = self._of(calls, name)
        for step in self.declaration.calls[call]:
            try:
                found = self._step(calls, call, step, {**of, **filled})
            except Failure as failure:
                if failure.reason is GatewayErrorKind.UNAUTHORIZED and of.get("secret"):
                    self._listed = {}  # the channel's secret may have changed
                if not step.may_fail:
                    raise
        return found

    def _step(self, calls: Calls, call: str, step: CallStep, filled: Mapping[str, str]) -> Any:
        """Make one request; return its ``value``, or the whole response without one."""
        path = _ALONE.sub(lambda found: quote(filled[found[1]], safe=""), step.path)
        # http.client encodes a header as Latin-1; gateways expect UTF-8.
        headers = {
            one: _fill(text, filled).encode(errors="replace").decode("latin-1")
            for one, text in step.headers.items()
        }
        own = self.declaration.auth.channel_header
        if own and "secret" in filled:
            headers[own] = filled["secret"]
        body = None if step.body is None else _fill(step.body, filled)
        answer = calls.send(step.method, path, body, headers=headers)
        if step.form == "png" and answer.is_success and answer.raw.startswith(_PNG):
            return base64.b64encode(answer.raw).decode()
        nothing_wanted = step.value is None and step.require is None and call not in {"list", "qr"}
        parsed = self._checked(call, answer, may_be_empty=nothing_wanted)
        found = parsed if step.value is None else step.value.of(parsed)
        for wanted, value in (
            (step.require, step.require and step.require.of(parsed)),
            (step.value, found is not None),
        ):
            if wanted is not None and not value:
                raise Failure(f"JSON without {wanted.text}")
        return found

    def _checked(self, name: str, answer: GatewayResponse, *, may_be_empty: bool) -> Any:
        parsed = answer.parsed
        rule = next((r for r in self.declaration.answers if _fits(r, name, answer, parsed)), None)
        if rule is None:
            if may_be_empty and answer.is_success and not answer.raw.strip():
                return None
            return answer.json_value()
        if rule.means in _QR_KINDS and name == "qr":
            raise _MeansQrKind(_QR_KINDS[rule.means])
        if rule.kind is not None:
            told = error_message(parsed)
            raise Failure(f"HTTP {answer.status}" + (f": {told}" if told else ""), rule.kind)
        return parsed


def _fits(rule: Rule, name: str, answer: GatewayResponse, parsed: Any) -> bool:
    return (
        rule.call in {None, name}
        and rule.http in {None, answer.status}
        and (rule.when is None or bool(rule.when.of(parsed)))
    )


def _fill(template: Any, filled: Mapping[str, str]) -> Any:
    """Return a template of JSON with its placeholders filled; a count alone stays a number."""
    if template in ("{limit}", "{offset}"):
        return int(filled[template[1:-1]])
    if isinstance(template, str):
        return _ALONE.sub(lambda found: filled[found[1]], template)
    if isinstance(template, dict):
        return {key: _fill(value, filled) for key, value in template.items()}
    if isinstance(template, list):
        return [_fill(value, filled) for value in template]
    return template


def _text(expression: Expression | None, entry: Any) -> str:
    found = expression.of(entry) if expression else None
    return found if isinstance(found, str) else ""


def _is_clear(paths: ReceivedPaths, row: Any) -> bool:
    """Whether an entry of a list of messages has a direction, and an id where it is counted."""
    has_id = bare_id(paths.messages.id.of(row)) is not None
    return isinstance(paths.out.of(row), bool) and (has_id or not _counts(paths, row))


def _counts(paths: ReceivedPaths, row: Any) -> bool:
    return (
        paths.out.of(row) is False
        and (paths.when is None or bool(paths.when.of(row)))
        and is_of_a_chat(paths.chat.of(row))
    )


def _entry(paths: ReceivedPaths, row: Any) -> Entry:
    """Return an entry of a list of messages; one of our own is not to be counted."""
    return Entry(
        seconds_of(paths.messages.at.of(row)),
        bare_id(paths.messages.id.of(row)) if _counts(paths, row) else None,
        paths.kind.of(row) if paths.kind else None,
        paths.chat.of(row),
    )


def _calls_made(declared: Declaration) -> CallsMade:
    def steps(call: str) -> str:
        return ", ".join(map(str, declared.calls.get(call, ())))

    listed = declared.received
    lists = (listed.chats, listed.messages) if listed else ()
    repair = declared.repair
    down = [steps(repair["disconnected"])]
    down += [f"{steps(repair[word])} where it is {word}" for word in repair if word not in _STATES]
    again = "create" if "create" in declared.calls else repair["disconnected"]
    return CallsMade(
        down="; ".join(down),
        zombie=steps(repair.get("silent", "")) or "nothing: a person is notified",
        stuck=steps(repair.get("stuck", "")) or "waits",
        proof=steps("query"),
        code=steps("code") or "none",
        messages=", ".join(str(one.step).partition("?")[0] for one in lists if one) or "none",
        lost=f"{steps('lose_pairing')}; then {steps(again)}",
    )


def adapter_for(declared: Declaration) -> type[DeclaredGateway]:
    """Create the adapter class for a description."""
    return type(
        f"Declared_{declared.name}",
        (DeclaredGateway,),
        {
            "declaration": declared,
            "usual_port": declared.port,
            "calls_made": _calls_made(declared),
            "keeps_channel": declared.keeps_channel,
            "lists_activity": declared.listing.activity is not None,
            "lists_messages": declared.received is not None,
            "can_query": "query" in declared.calls,
            "can_pair": "code" in declared.calls,
            "can_take_back": "take_back" in declared.calls,
            "asks_number": declared.number is not None,
            "lists_qr": Status.QR_REQUIRED in declared.statuses.values(),
            "signature_header": (declared.events and declared.events.signature) or "",
        },
    )


def shipped() -> dict[str, Declaration]:
    """Return the shipped descriptions by type."""
    found: dict[str, Declaration] = {}
    for path in sorted(Path(__file__).parent.glob("*.yaml")):
        found |= read_file(path)
    return found
