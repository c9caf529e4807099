"""Parser of YAML descriptions of gateways: their calls, and the meaning of responses.

docs/gateways/declared.md has all keys. Errors are one line, raised when the file is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import jmespath
import yaml

from zapwatch.channels import Status
from zapwatch.config.readers import SettingsError, UniqueKeys, read_yaml
from zapwatch.gateways.base import GatewayErrorKind

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_CALL = re.compile(r"(GET|POST|PUT|PATCH|DELETE) (/[^\s#\\]*)")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_LITERALS = "a text is in '...', a number, true, false or null in `...`"
_FIELD_FOR_LITERAL = re.compile(r'[=!]=\s*(?:"|(?:true|false|null)\b)')
_MOST_NODES = 80
_SHORTEST_SECRET = 8  # a shorter one may be a word of a path
_MOST_LISTS = 2  # [a, b] | [@, @] | ... doubles a response at each step

_OF_CHANNEL = {"id", "number"}
PLACEHOLDERS = {
    "list": {"limit", "offset"},
    "send": {*_OF_CHANNEL, "text"},
    "take_back": {*_OF_CHANNEL, "message_id"},
    "query": _OF_CHANNEL,
    "code": _OF_CHANNEL,
    "received": {"limit", "offset", "chat"},
    "chats": {"limit", "offset"},
}
"""Placeholders of calls besides the channel's ``{id}``; other calls only have that one."""

_ALL_NAMES = {"id"}.union(*PLACEHOLDERS.values())
_NEEDED_CALLS = {"qr", "send", "lose_pairing"}
_QR_FORMS = ("base64", "data_url", "link", "png")
_MEANINGS = {
    "unauthorized": GatewayErrorKind.UNAUTHORIZED,
    "limit": GatewayErrorKind.LIMIT,
    "failed": GatewayErrorKind.INVALID,
    "accepted": None,
    "starting": None,
    "ok": None,
}


class DeclarationError(SettingsError):
    """An invalid description."""


@dataclass(frozen=True, slots=True)
class Expression:
    """Compiled JMESPath expression."""

    text: str
    _compiled: Any = field(repr=False, compare=False)

    def of(self, value: object) -> Any:
        """Return the result for a JSON value, None if there is none."""
        try:
            return self._compiled.search(value)
        # A function with an argument of a wrong type, an invalid number, or too deep a value.
        except (ArithmeticError, RecursionError, TypeError, ValueError):
            return None


class Auth(NamedTuple):
    """Transport of the secret; calls about a channel may send its own secret in a header."""

    kind: str
    """``header``, ``bearer`` or ``basic``."""
    header: str = ""
    channel_header: str = ""

    @property
    def in_authorization(self) -> bool:
        """Whether the secret uses the header Authorization, which excludes HTTP Basic."""
        return self.kind != "header" or self.header.lower() == "authorization"


@dataclass(frozen=True, slots=True)
class CallStep:
    """One request: method, path with placeholders, content, and the value in its response."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    value: Expression | None = None
    form: str = "base64"
    """Format of a QR code in ``value``."""
    require: Expression | None = None
    may_fail: bool = False

    def __str__(self) -> str:
        """Return the request for logs and reports."""
        return f"{self.method} {self.path}"

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is sent, with its placeholders."""
        return (self.path, *self.headers.values(), *_strings(self.body))


@dataclass(frozen=True, slots=True)
class Rule:
    """Meaning of a response; the first matching rule counts."""

    means: str
    http: int | None = None
    when: Expression | None = None
    call: str | None = None

    @property
    def kind(self) -> GatewayErrorKind | None:
        """Kind of failure, None if the response is not a failure."""
        return _MEANINGS[self.means]


@dataclass(frozen=True, slots=True)
class Listing:
    """Call for the list, and paths in its entries.

    A channel's id in Zapwatch is its ``name`` if that exists; calls, and possibly events, use its
    ``id``. ``secret`` is the channel's own. A call with ``{offset}`` lists ``page`` at most.
    """

    step: CallStep
    page: int
    items: Expression
    id: Expression
    name: Expression | None = None
    secret: Expression | None = None
    status: Expression | None = None
    number: Expression | None = None
    activity: Expression | None = None


@dataclass(frozen=True, slots=True)
class EventPaths:
    """Paths in a posted event; all but ``when``, ``channel`` and ``items`` apply to an item."""

    when: Expression
    channel: Expression
    items: Expression
    out: Expression
    at: Expression | None = None
    id: Expression | None = None
    heard: Expression | None = None
    signature: str | None = None
    """Header with the hexadecimal HMAC-SHA256 of the body."""


@dataclass(frozen=True, slots=True)
class PagedList:
    """A call that lists messages or chats, and where an entry has its id and time.

    With ``{offset}`` the newest are first and the list goes on; with ``{limit}`` alone it has the
    newest so many; with neither it has all.
    """

    step: CallStep
    page: int
    items: Expression
    id: Expression
    at: Expression

    def names(self, placeholder: str) -> bool:
        """Whether a placeholder stands anywhere in the call."""
        return any(f"{{{placeholder}}}" in text for text in self.step.texts)


@dataclass(frozen=True, slots=True)
class ReceivedPaths:
    """How messages are listed: those of all chats at once, or of each of ``chats``."""

    messages: PagedList
    out: Expression
    chat: Expression
    kind: Expression | None = None
    when: Expression | None = None
    """Whether an entry is a message of a person."""
    chats: PagedList | None = None


@dataclass(frozen=True, slots=True)
class Declaration:
    """Description of one type of gateway."""

    name: str
    port: int
    auth: Auth
    listing: Listing
    status: CallStep | None
    number: CallStep | None
    statuses: Mapping[str, Status]
    repair: Mapping[str, str]
    """Names of calls by the gateway's own status, or ``disconnected``, ``stuck``, ``silent``."""
    calls: Mapping[str, tuple[CallStep, ...]]
    keeps_channel: bool
    answers: tuple[Rule, ...]
    events: EventPaths | None
    received: ReceivedPaths | None = None

    def holds(self, secret: str) -> bool:
        """Whether a call has the secret in it, which ``auth`` alone may carry."""
        lists = (self.received.messages, self.received.chats) if self.received else ()
        steps = (self.listing.step, self.status, self.number, *(one.step for one in lists if one))
        every = (*steps, *(step for call in self.calls.values() for step in call))
        found = (text for step in every if step for text in step.texts)
        return len(secret) >= _SHORTEST_SECRET and any(secret in text for text in found)


def read_file(path: Path) -> dict[str, Declaration]:
    """Return the types in a file by name; raise DeclarationError."""
    try:
        read = read_yaml("types_file", path, _TypesLoader)
    except SettingsError as error:
        raise DeclarationError(str(error)) from None
    top = _Keys(str(path), read, {"types"}, {"types"})
    types = top.get("types")
    if not isinstance(types, dict) or not types:
        raise DeclarationError(f"{path}: types must have a key for each type")
    return {name: _declaration(f"{path}: {name}", name, one) for name, one in types.items()}


class _TypesLoader(UniqueKeys, yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            # Aliases of aliases expand a small file to any size.
            mark = self.get_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="an alias cannot be used here", problem_mark=mark)
        return super().compose_node(parent, index)


class _Keys:
    """Mapping with known keys only; errors include the place in the file."""

    def __init__(self, where: str, value: Any, known: set[str], needed: set[str]) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise DeclarationError(f"{where} must have keys: {', '.join(sorted(known))}")
        for key in value:
            if key not in known:
                text = f"{key!r} is not known; known: {', '.join(sorted(known))}"
                raise DeclarationError(f"{where}: {text}")
        for key in sorted(needed - value.keys()):
            raise DeclarationError(f"{where}: {key} is missing")
        self._values = value

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def wrong(self, key: str, what: str) -> DeclarationError:
        return DeclarationError(
            f"{self.where}: {key} must be {what}, not {self._values.get(key)!r}"
        )

    def choice(self, key: str, default: str, known: tuple[str, ...]) -> str:
        value = self._values.get(key, default)
        if value not in known:
            raise self.wrong(key, f"one of {', '.join(known)}")
        return str(value)

    def number(self, key: str, default: float) -> float:
        value = self._values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
            raise self.wrong(key, "a number, 0 or more")
        return value

    def switch(self, key: str) -> bool:
        value = self._values.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def texts(self, key: str) -> dict[str, str]:
        value = self._values.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "texts by texts")
        for one in (one for pair in value.items() for one in pair):
            if not isinstance(one, str):
                raise DeclarationError(
                    f"{self.where}: {key}: {one!r} is not a text: put quotes around it"
                )
        return dict(value)

    def header(self, key: str) -> str:
        name = self._values.get(key)
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9-]+", name):
            raise self.wrong(key, "a header's name")
        return name

    def expression(self, key: str) -> Expression:
        text = self._values.get(key)
        if not isinstance(text, str):
            raise self.wrong(key, "a JMESPath expression in quotes")
        return _expression(f"{self.where}: {key}", text)

    def expressions(self, *keys: str) -> dict[str, Any]:
        """Return the expressions of those keys that exist."""
        return {key: self.expression(key) for key in keys if key in self._values}


def _expression(where: str, text: str) -> Expression:
    try:
        compiled = jmespath.compile(text)
    except (jmespath.exceptions.JMESPathError, RecursionError) as error:
        why = str(error).partition("\n")[0]
        raise DeclarationError(
            f"{where}: {text!r} is not a JMESPath expression: {why} ({_LITERALS})"
        ) from None
    if _FIELD_FOR_LITERAL.search(text):
        raise DeclarationError(f"{where}: {text!r} compares two fields: {_LITERALS}")
    nodes = list(_nodes(compiled.parsed))
    lists = [one for one in nodes if one in {"multi_select_list", "multi_select_dict"}]
    if len(nodes) > _MOST_NODES or len(lists) > _MOST_LISTS:
        raise DeclarationError(
            f"{where}: the expression has more than {_MOST_NODES} parts, or makes lists of lists"
        )
    return Expression(text, compiled)


def _nodes(node: Any) -> Iterator[str]:
    yield node["type"]
    for child in node["children"]:
        if isinstance(child, dict) and "type" in child:
            yield from _nodes(child)


def _declaration(where: str, name: Any, value: Any) -> Declaration:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DeclarationError(f"{where}: a type's name must be small letters, digits and -")
    needed = {"auth", "list", "statuses", "repair", "calls"}
    optional = {"port", "status", "number", "keeps_channel", "answers", "events", "received"}
    keys = _Keys(where, value, needed | optional, needed)
    given = keys.get("calls")
    names = set(given) if isinstance(given, dict) else _NEEDED_CALLS
    calls_given = _Keys(f"{where}: calls", given, names, _NEEDED_CALLS)
    calls = {one: _steps(calls_given, one) for one in given}
    statuses = _statuses(keys)
    auth, listing = _auth(keys), _listing(keys)
    if bool(auth.channel_header) != (listing.secret is not None):
        raise DeclarationError(f"{where}: auth: channel_header and list: secret go together")
    return Declaration(
        name=name,
        port=int(keys.number("port", 443)),
        auth=auth,
        listing=listing,
        status=_of_one(keys, "status"),
        number=_of_one(keys, "number"),
        statuses=statuses,
        repair=_repair(keys, calls, statuses),
        calls=calls,
        keeps_channel=keys.switch("keeps_channel"),
        answers=_answers(keys, calls),
        events=_events(keys) if "events" in keys else None,
        received=_received(keys) if "received" in keys else None,
    )


def _of_one(keys: _Keys, name: str) -> CallStep | None:
    """Return the call ``name``, which returns one value of a channel."""
    if name not in keys:
        return None
    step = _step(f"{keys.where}: {name}", keys.get(name), set())
    if step.value is None:
        raise DeclarationError(f"{keys.where}: {name}: value is missing")
    return step


def _auth(keys: _Keys) -> Auth:
    known = {"header", "bearer", "basic", "channel_header"}
    auth = _Keys(f"{keys.where}: auth", keys.get("auth"), known, set())
    own = auth.header("channel_header") if "channel_header" in auth else ""
    kinds = [kind for kind in ("header", "bearer", "basic") if kind in auth]
    if len(kinds) != 1:
        raise DeclarationError(f"{auth.where} must have one of header, bearer and basic")
    if kinds[0] != "header":
        if not auth.switch(kinds[0]):
            raise auth.wrong(kinds[0], "true")
        return Auth(kinds[0], channel_header=own)
    return Auth("header", auth.header("header"), own)


def _listing(keys: _Keys) -> Listing:
    where = f"{keys.where}: list"
    needed = {"call", "items", "id"}
    optional = {"name", "secret", "number", "status", "activity"}
    listing = _Keys(where, keys.get("list"), {*needed, *optional, "page"}, needed)
    if "status" not in listing and "status" not in keys:
        raise DeclarationError(f"{where}: status is missing, or a call for it beside list")
    step = _step(where, {"call": listing.get("call")}, PLACEHOLDERS["list"])
    return Listing(step, _page(listing), **listing.expressions("items", "id", *optional))


def _statuses(keys: _Keys) -> dict[str, Status]:
    statuses = {}
    for word, status in keys.texts("statuses").items():
        if status not in set(Status):
            known = ", ".join(Status)
            raise DeclarationError(
                f"{keys.where}: statuses: {word} must be one of {known}, not {status!r}"
            )
        statuses[word] = Status(status)
    return statuses


def _repair(
    keys: _Keys, calls: Mapping[str, object], statuses: Mapping[str, Status]
) -> dict[str, str]:
    repair = keys.texts("repair")
    known = {*statuses, Status.DISCONNECTED.value, "stuck", "silent"}
    for state, call in repair.items():
        if state not in known:
            raise DeclarationError(f"{keys.where}: repair: {state!r} is not a status")
        if call not in calls:
            raise DeclarationError(f"{keys.where}: repair: {state}: there is no call {call!r}")
        if call == "lose_pairing":
            raise DeclarationError(f"{keys.where}: repair: {state}: that loses the pairing")
    if Status.DISCONNECTED.value not in repair:
        raise DeclarationError(f"{keys.where}: repair: disconnected is missing")
    return repair


def _steps(calls: _Keys, name: str) -> tuple[CallStep, ...]:
    steps = calls.get(name)
    where = f"{calls.where}: {name}"
    if not isinstance(steps, list) or not steps:
        raise DeclarationError(f"{where} must list its steps, each with a -")
    allowed = PLACEHOLDERS.get(name, set())
    made = tuple(_step(where, one, allowed) for one in steps)
    if name in {"qr", "code"} and made[-1].value is None and made[-1].form != "png":
        raise DeclarationError(f"{where}: value is missing: where is the code in the answer?")
    return made


def _step(where: str, value: Any, allowed: set[str]) -> CallStep:
    given = {"call": value} if isinstance(value, str) else value
    known = {"call", "headers", "body", "value", "as", "require", "may_fail"}
    keys = _Keys(where, given, known, {"call"})
    call = _CALL.fullmatch(call) if isinstance(call := keys.get("call"), str) else None
    if call is None:
        raise keys.wrong("call", "like GET /devices")
    if ".." in unquote(call[2]) or "//" in call[2]:
        raise keys.wrong("call", "a path without .. and //")
    headers = keys.texts("headers")
    if not all(re.fullmatch(r"[A-Za-z0-9-]+: [ -~]*", ": ".join(pair)) for pair in headers.items()):
        raise keys.wrong("headers", "names of headers with texts of plain letters")
    if not _is_json(keys.get("body")):
        raise keys.wrong("body", "an object of JSON")
    for name in _unquoted(keys.get("body")):
        raise DeclarationError(f'{where}: body: {{{name}}} needs quotes: "{{{name}}}"')
    if re.search(r"[{}]", _PLACEHOLDER.sub("", call[2])):
        raise keys.wrong("call", "a path whose { and } are pairs")
    names = {"id", *allowed} if where.rpartition(": ")[2] != "list" else allowed
    for text in (call[2], *headers.values(), *_strings(keys.get("body"))):
        for placeholder in _PLACEHOLDER.findall(text):
            if placeholder not in names:
                known_names = ", ".join(f"{{{one}}}" for one in sorted(names))
                raise DeclarationError(
                    f"{where}: {{{placeholder}}} is not allowed here; only {known_names}"
                )
    return CallStep(
        method=call[1],
        path=call[2],
        headers=headers,
        body=keys.get("body"),
        form=keys.choice("as", "base64", _QR_FORMS),
        may_fail=keys.switch("may_fail"),
        **keys.expressions("value", "require"),
    )


def _is_json(body: Any) -> bool:
    try:
        json.dumps(body, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return body is None or isinstance(body, dict)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)


def _unquoted(value: Any) -> Iterator[str]:
    """Return what YAML has made a mapping of, and is meant as a placeholder."""
    if isinstance(value, dict):
        if len(value) == 1 and (name := next(iter(value))) in _ALL_NAMES and value[name] is None:
            yield name
        value = list(value.values())
    for one in value if isinstance(value, list) else ():
        yield from _unquoted(one)


def _answers(keys: _Keys, calls: Mapping[str, object]) -> tuple[Rule, ...]:
    rules = keys.get("answers") or []
    where = f"{keys.where}: answers"
    if not isinstance(rules, list):
        raise DeclarationError(f"{where} must list rules, each with a -")
    made = []
    for number, one in enumerate(rules, 1):
        rule = _Keys(f"{where}, rule {number}", one, {"http", "when", "call", "means"}, {"means"})
        if "http" not in rule and "when" not in rule:
            raise DeclarationError(f"{rule.where}: http or when is missing")
        call = rule.get("call")
        known = ("list", "status", "number", "received", "chats", *calls)
        if call is not None and call not in known:
            raise DeclarationError(f"{rule.where}: there is no call {call!r}")
        http = rule.get("http")
        if "http" in rule and not (type(http) is int and 100 <= http <= 599):
            raise rule.wrong("http", "an HTTP status from 100 to 599")
        means = rule.choice("means", "", tuple(_MEANINGS))
        made.append(Rule(means, http, call=call, **rule.expressions("when")))
    return tuple(made)


def _events(keys: _Keys) -> EventPaths:
    needed = {"when", "channel", "items", "out"}
    known = {*needed, "at", "id", "heard"}
    events = _Keys(f"{keys.where}: events", keys.get("events"), {*known, "signature"}, needed)
    signature = events.header("signature") if "signature" in events else None
    return EventPaths(signature=signature, **events.expressions(*known))


_PAGED = {"call", "items", "id", "at"}


def _paged(keys: _Keys, name: str) -> PagedList:
    step = {one: keys.get(one) for one in ("call", "headers", "body") if one in keys}
    made = _step(keys.where, step, PLACEHOLDERS[name])
    return PagedList(made, _page(keys), **keys.expressions("items", "id", "at"))


def _page(keys: _Keys) -> int:
    page = keys.number("page", 100)
    if not 1 <= page <= 1000:
        raise keys.wrong("page", "a number from 1 to 1000")
    return int(page)


def _received(keys: _Keys) -> ReceivedPaths:
    where = f"{keys.where}: received"
    needed = {*_PAGED, "out", "chat"}
    optional = {"headers", "body", "page", "kind", "when", "chats"}
    received = _Keys(where, keys.get("received"), needed | optional, needed)
    messages, chats = _paged(received, "received"), None
    if "chats" in received:
        of_chats = _PAGED | {"headers", "body", "page"}
        chats = _paged(_Keys(f"{where}: chats", received.get("chats"), of_chats, _PAGED), "chats")
    if messages.names("chat") != (chats is not None):
        raise DeclarationError(f"{where}: {{chat}} in a call and chats go together")
    paths = received.expressions("out", "chat", "kind", "when")
    return ReceivedPaths(messages, chats=chats, **paths)
