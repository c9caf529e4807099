"""``python -m reconnect_hook probe CHANNEL``: asks one channel now, and says what came of it."""

from __future__ import annotations

from collections.abc import Mapping

from reconnect_hook.context import (
    PostponedError,
    ProbeContext,
    QueryFailedOnceError,
    UnableError,
)
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.probe import Finding, ProbeRun
from reconnect_hook.probe_limits import ECHO_GAP_SECONDS, ProbeOutcome
from reconnect_hook.scheduler import Scheduler, add_gateways
from reconnect_hook.supervisor import make_controller, open_store
from zapwatch.channels import Channel, channel_key
from zapwatch.cli import printable
from zapwatch.config import Settings
from zapwatch.config.gateway import ProbeKind
from zapwatch.db import StateError
from zapwatch.gateways.base import GatewayError
from zapwatch.messages.webhook_log import MessageLogError

_SAID = {
    ProbeOutcome.PASSED: "alive",
    ProbeOutcome.FAILED: "dead",
    ProbeOutcome.OTHER_FAILED: "the channel that was to write to it is dead",
    ProbeOutcome.UNDECIDED: "not heard, and whose fault that is did not show; does the message log "
    "get to know of messages?",
}


def run_probe(settings: Settings, channel: str, kind: ProbeKind | None, *, dry_run: bool) -> int:
    """Ask a channel, and repair nothing; raise SettingsError.

    Returns 0 where it is alive, or with ``dry_run`` could be asked, else 1.
    """
    store = open_store(settings)
    key = channel_key(channel)
    code = 1
    unread = known = False
    scheduler = Scheduler(store.database)
    add_gateways(store.database, [gateway.name for gateway in settings.gateways])
    for gateway in settings.gateways:
        controller = make_controller(settings, gateway, store, HookMetrics(), scheduler)
        try:
            listed = {one.key: one for one in controller.client.list_channels().channels}
            if key in listed:
                known = True
                code = _probe(controller.probing, listed[key], listed, kind, dry_run=dry_run)
        except GatewayError as error:
            unread = True
            _say(f"{gateway.name}: {error}; check --dry-run --verbose says more")
        finally:
            controller.client.close()
    store.database.close()
    if not known and not unread:
        _say(f"{channel}: no gateway lists such a channel; check --dry-run --verbose lists all")
    return code


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
        _say(f"{channel.id}: cannot be asked: {obstacle}")
        return 1
    if not channel.connected:
        _say(f"{channel.id}: {channel.status}, so there is nothing to ask")
        return 1
    if dry_run:
        _say(f"{channel.id}: would be asked by {wanted}")
        return 0
    try:
        means.book.begin(channel)
        finding = _run(means, channel, listed, wanted)
        means.book.end(channel.key, finding.kind, finding.outcome, finding.suspended)
    except PostponedError as error:
        _say(f"{channel.id}: not asked: {error}; try again in {ECHO_GAP_SECONDS:g} s")
        return 1
    except UnableError as error:
        _say(f"{channel.id}: not asked: {error}")
        return 1
    except MessageLogError as error:
        _say(f"{channel.id}: not asked: the message log cannot be read: {error}")
        return 1
    except StateError as error:
        _say(f"{channel.id}: HOOK_STATE_URL cannot be used: {error}")
        return 1
    detail = f" ({finding.detail})" if finding.detail else ""
    _say(f"{channel.id}: {_SAID[finding.outcome]}, asked by {finding.kind}{detail}")
    for one in finding.dead:
        _say(f"{one.id}: nothing was repaired; its next alert does that, or the page does it now")
    return 0 if finding.outcome is ProbeOutcome.PASSED else 1


def _run(
    means: ProbeContext, channel: Channel, listed: Mapping[str, Channel], wanted: ProbeKind
) -> Finding:
    try:
        return ProbeRun(means, channel, listed).run(wanted)
    except QueryFailedOnceError as error:
        means.wait(error.seconds)
        return ProbeRun(means, channel, listed, query_failed=True).run(wanted)


def _obstacle(means: ProbeContext, channel: Channel, wanted: ProbeKind) -> str:
    """Return what keeps a channel from being asked so, and empty where nothing does."""
    if not channel.repairable:
        return "it is of a kind that is only watched"
    if wanted is ProbeKind.QUERY and means.client.can_query:
        return ""
    if wanted is ProbeKind.ECHO and means.kind_of(channel) is ProbeKind.ECHO:
        return ""
    chosen = means.settings.wanted(channel.key)
    if chosen is ProbeKind.OFF:
        return "PROBE or PROBE_OVERRIDES says off"
    if wanted is ProbeKind.ECHO and chosen is ProbeKind.QUERY:
        return "an echo needs PROBE=echo"
    if ProbeKind.QUERY in {wanted, chosen}:
        return "this kind of gateway has no query; PROBE=echo asks by a message"
    if means.messages is None:
        return "an echo needs a message log or events: see MESSAGE_SOURCE and MESSAGE_LOG_URL"
    return "an echo needs its number in PROBE_ECHO_NUMBERS"


def _say(line: str) -> None:
    print(printable(line), flush=True)  # noqa: T201 - the operator reads it
