"""The commands ``probe`` and ``audit``: run once, print the result, return an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import datetime

from reconnect_hook.echo import PostponedError, ProbeContext, QueryFailedOnceError, UnableError
from reconnect_hook.message_audit import Audit, AuditResult
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.models import ProbeOutcome
from reconnect_hook.probe import Finding, ProbeRun
from reconnect_hook.probe_limits import ECHO_GAP_SECONDS
from reconnect_hook.reconciler import Scheduler
from reconnect_hook.repository import add_gateways
from reconnect_hook.supervisor import GatewayController, open_store
from zapwatch.channels import AmbiguousNameError, Channel, key_meant
from zapwatch.cli import printable
from zapwatch.clock import Clock
from zapwatch.config import GatewaySettings, Settings, SettingsError
from zapwatch.config.readers import ProbeKind
from zapwatch.db import StateError
from zapwatch.gateways.base import GatewayError
from zapwatch.messages.message import MessageLogError

MISSED, UNKNOWN = 3, 1
"""Exit codes: messages are missing; a result is unknown."""

_SAID = {
    ProbeOutcome.PASSED: "working",
    ProbeOutcome.FAILED: "not responding",
    ProbeOutcome.OTHER_FAILED: "inconclusive: the channel that sent the echo is not responding",
    ProbeOutcome.DELIVERY_BROKEN: "connected, but its messages do not arrive",
    ProbeOutcome.UNDECIDED: "inconclusive: the echo was lost and neither side could be proved "
    "dead; do messages reach the message log?",
}


def run_probe(settings: Settings, channel: str, kind: ProbeKind | None, *, dry_run: bool) -> int:
    """Probe a channel without repairing it; raise SettingsError.

    Returns 0 if it is alive (with ``dry_run``: if it can be probed), else 1.
    """
    code = 1
    unread = known = False
    for controller in _controllers(settings, settings.gateways):
        name = controller.gateway.name
        try:
            listed = _list(controller)
            for one in _named(listed, channel):
                known = True
                code = _probe(controller.probing, one, listed, kind, dry_run=dry_run)
        except GatewayError as error:
            unread = True
            _say(f"{name}: {error}; see check --dry-run --verbose")
        except AmbiguousNameError as error:
            known = True
            _say(f"{name}: {error}")
    if not known and not unread:
        _say(f"{channel}: no gateway lists such a channel; check --dry-run --verbose lists all")
    return code


def _controllers(
    settings: Settings, gateways: Iterable[GatewaySettings]
) -> Iterator[GatewayController]:
    """Yield the controllers of these gateways, each open until the next; raise SettingsError."""
    store = open_store(settings)
    scheduler = Scheduler(store.database)
    add_gateways(store.database, [gateway.name for gateway in settings.gateways])
    for gateway in gateways:
        made = GatewayController(settings, gateway, store, HookMetrics(), scheduler)
        with closing(made) as controller:
            yield controller
    store.database.close()


def _probe(
    means: ProbeContext,
    channel: Channel,
    listed: Mapping[str, Channel],
    kind: ProbeKind | None,
    *,
    dry_run: bool,
) -> int:
    wanted = kind or means.kind_of(channel)
    obstacle = _obstacle(means, channel, wanted)
    if obstacle:
        return _refuse(channel, f"cannot be probed: {obstacle}")
    if not channel.connected:
        return _refuse(channel, f"{channel.status}, so there is nothing to probe")
    if dry_run:
        _say(f"{channel.id}: would be probed by {wanted}")
        return 0
    try:
        means.book.begin(channel)
        # --kind echo always sends an echo.
        finding = _run(means, channel, listed, wanted, sends=kind is ProbeKind.ECHO)
        means.book.end(channel.key, finding.kind, finding.outcome, finding.suspended)
    except PostponedError as error:
        return _refuse(channel, f"not probed: {error}; try again in {ECHO_GAP_SECONDS:g} s")
    except UnableError as error:
        return _refuse(channel, f"not probed: {error}")
    except MessageLogError as error:
        return _refuse(channel, f"not probed: the message log cannot be read: {error}")
    except StateError as error:
        return _refuse(channel, f"HOOK_STATE_URL cannot be used: {error}")
    detail = f" ({finding.detail})" if finding.detail else ""
    _say(f"{channel.id}: {_SAID[finding.outcome]}, probed by {finding.kind}{detail}")
    for one in finding.dead:
        _say(f'{one.id}: not repaired; its next alert does that, or "Reconnect now" on the page')
    return 0 if finding.outcome is ProbeOutcome.PASSED else 1


def _refuse(channel: Channel, why: str) -> int:
    _say(f"{channel.id}: {why}")
    return 1


def _run(
    means: ProbeContext,
    channel: Channel,
    listed: Mapping[str, Channel],
    wanted: ProbeKind,
    *,
    sends: bool,
) -> Finding:
    try:
        return ProbeRun(means, channel, listed).run(wanted, sends=sends)
    except QueryFailedOnceError as error:
        means.wait(error.seconds)
        return ProbeRun(means, channel, listed, query_failed=True).run(wanted, sends=sends)


def _obstacle(means: ProbeContext, channel: Channel, wanted: ProbeKind) -> str:
    """Return why a channel cannot be probed in this way, empty if it can."""
    if not channel.repairable:
        return "it is of a kind that is only watched"
    if wanted is ProbeKind.QUERY and means.client.can_query:
        return ""
    if wanted is ProbeKind.DELIVERY and means.delivery is not None:
        return ""
    if wanted is ProbeKind.ECHO and means.kind_of(channel) is ProbeKind.ECHO:
        return ""
    chosen = means.settings.wanted(channel)
    if chosen is ProbeKind.OFF:
        return "PROBE or PROBE_OVERRIDES is off"
    asks_nothing = wanted is ProbeKind.OFF and chosen is ProbeKind.DELIVERY
    if wanted is ProbeKind.DELIVERY or asks_nothing:
        return "its messages cannot be compared: the gateway lists none, or there is no message log"
    if wanted is ProbeKind.ECHO and chosen in {ProbeKind.QUERY, ProbeKind.DELIVERY}:
        return "an echo needs PROBE=echo"
    if ProbeKind.QUERY in {wanted, chosen}:
        return "this kind of gateway has no query; PROBE=echo asks by a message"
    if means.messages is None:
        return "an echo needs a message log or events: see MESSAGE_SOURCE and MESSAGE_LOG_URL"
    return "an echo needs its number in PROBE_ECHO_NUMBERS"


def run_audit(
    settings: Settings,
    channel: str | None,
    gateway: str | None,
    hours: float,
    *,
    as_json: bool,
    replay: bool = False,
) -> int:
    """Audit one channel or all, of one gateway or all; raise SettingsError.

    ``replay``: deliver missing messages again, then audit a second time. Returns 0 if no message
    is missing, else MISSED or UNKNOWN.
    """
    names = [one.name for one in settings.gateways]
    if gateway is not None and gateway not in names:
        raise SettingsError(f"there is no gateway {gateway!r}, only {', '.join(names)}")
    chosen = [one for one in settings.gateways if gateway in {None, one.name}]
    if replay and not any(one.replay_url for one in chosen):
        raise SettingsError("--replay needs MESSAGE_REPLAY_URL, which is not set")
    since = Clock().time() - hours * 3600
    say: Callable[..., None] = (lambda *_: None) if as_json else _say
    found: list[tuple[str, Channel, Audit]] = []
    failed = False
    for controller in _controllers(settings, chosen):
        name = controller.gateway.name
        try:
            for each in _named(_list(controller), channel):
                # One at a time, to show progress with thousands of channels.
                audit = _audit(controller, each, since, say)
                if replay and audit.missed:
                    say(_replay(controller, each))
                    audit = _audit(controller, each, since, say)
                found.append((name, each, audit))
        except (GatewayError, StateError, AmbiguousNameError) as error:
            failed = True
            _say(f"{name}: {error}")
    if as_json:
        _say(*json.dumps({"audits": [_object(*one) for one in found]}, indent=2).splitlines())
    elif not found and not failed:
        _say("no gateway lists such a channel; check --dry-run --verbose lists all")
    results = {audit.result for _, _, audit in found}
    if AuditResult.MISSED in results:
        return MISSED
    return UNKNOWN if failed or not found or AuditResult.UNKNOWN in results else 0


def _list(controller: GatewayController) -> Mapping[str, Channel]:
    """List the channels, also for the message sources."""
    listed = {one.key: one for one in controller.client.list_channels().channels}
    controller.workers.channels = listed
    return listed


def _named(listed: Mapping[str, Channel], name: str | None) -> list[Channel]:
    """Return the channel of this name, or all without one; raise AmbiguousNameError."""
    if name is None:
        return list(listed.values())
    key = key_meant(name, listed)
    return [] if key is None else [listed[key]]


def _audit(
    controller: GatewayController, channel: Channel, since: float, say: Callable[..., None]
) -> Audit:
    [(_, audit)] = controller.auditor.audit([(channel, since)])
    controller.auditor.record(channel, audit)
    say(*_lines(controller.gateway.name, channel, audit))
    return audit


def _replay(controller: GatewayController, channel: Channel) -> str:
    """Deliver a channel's missed messages again; return the result as one line."""
    done = controller.replayer.run_now(channel)
    results, why = done or ({}, "another program is delivering: try again")
    told = [f"{count} {result}" for result, count in results.items()]
    told += [why] if why else []
    return f"{controller.gateway.name}: {channel.id}: delivery: {', '.join(told) or 'none'}"


def _lines(gateway: str, channel: Channel, audit: Audit) -> Iterator[str]:
    head = f"{gateway}: {channel.id}: {audit.result}: {audit.received} received"
    head += f", {len(audit.missed)} missed" if audit.missed else ""
    yield head + (f" ({audit.why})" if audit.why else "")
    for one in audit.missed:
        at = datetime.fromtimestamp(one.at).astimezone().isoformat(timespec="seconds")
        yield f"  {at} {one.kind} of a chat that ends in {one.chat or '?'}, id {one.id}"


def _object(gateway: str, channel: Channel, audit: Audit) -> dict[str, object]:
    return {
        "gateway": gateway,
        "channel": channel.id,
        "result": audit.result,
        "received": audit.received,
        "detail": audit.why,
        "missed": [
            {"id": one.id, "at": one.at, "kind": one.kind, "chat_ends_in": one.chat}
            for one in audit.missed
        ],
    }


def _say(*lines: str) -> None:
    print("\n".join(map(printable, lines)), flush=True)  # noqa: T201 - for the operator
