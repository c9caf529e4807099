"""``python -m reconnect_hook probe CHANNEL``: asks one channel now, and says what came of it."""

from __future__ import annotations

from reconnect_hook.metrics import Metrics
from reconnect_hook.probes.examination import Examination
from reconnect_hook.probes.means import PostponedError, UnableError
from reconnect_hook.service import Service, make_service, open_store
from reconnect_hook.state.database import StateError
from reconnect_hook.state.probes import ProbeOutcome
from whatsapp.channels import channel_key
from whatsapp.gateways.gateway import GatewayError
from whatsapp.message_log import MessageLogError
from whatsapp.probe_settings import ProbeKind
from whatsapp.settings import Settings

_SAID = {
    ProbeOutcome.PASSED: "alive",
    ProbeOutcome.FAILED: "dead",
    ProbeOutcome.OTHER_FAILED: "the channel that was to write to it is dead",
    ProbeOutcome.UNDECIDED: "not heard, and whose fault that is did not show",
}


def run_probe(settings: Settings, channel: str, kind: ProbeKind | None, *, dry_run: bool) -> int:
    """Ask a channel, and repair nothing; raise SettingsError.

    Returns 0 where it is alive, or with ``dry_run`` could be asked, else 1.
    """
    store = open_store(settings)
    key = channel_key(channel)
    code = 1
    known = False
    for gateway in settings.gateways:
        service = make_service(settings, gateway, store, Metrics(), stays=False)
        try:
            listed = {one.key: one for one in service.client.list_channels().channels}
            if key in listed:
                known = True
                code = _probe(service, key, kind, dry_run=dry_run)
        except GatewayError as error:
            _say(f"{gateway.name}: {error}")
        finally:
            service.client.close()
    store.database.close()
    if not known:
        _say(f"{channel}: no gateway lists such a channel")
    return code


def _probe(service: Service, key: str, kind: ProbeKind | None, *, dry_run: bool) -> int:
    means = service.probing
    try:
        listed = {one.key: one for one in means.client.list_channels().channels}
        channel = listed[key]
        usual = means.kind_of(channel)
        wanted = kind or usual
        impossible = {
            ProbeKind.OFF: True,
            ProbeKind.QUERY: not means.client.can_query,
            ProbeKind.ECHO: usual is not ProbeKind.ECHO,
        }
        if impossible[wanted]:
            _say(f"{channel.id}: cannot be asked so; see PROBE and PROBE_ECHO_NUMBERS")
            return 1
        if not channel.connected:
            _say(f"{channel.id}: {channel.status}, so there is nothing to ask")
            return 1
        if dry_run:
            _say(f"{channel.id}: would be asked by {wanted}")
            return 0
        means.book.begin(key, channel.id, None)
        finding = Examination(means, channel, listed).run(wanted)
        means.book.end(key, channel.id, finding.kind, finding.outcome, finding.halted)
    except (PostponedError, UnableError) as error:
        _say(f"{key}: not asked: {error}")
        return 1
    except (GatewayError, MessageLogError, StateError, KeyError) as error:
        _say(f"{key}: {error}")
        return 1
    detail = f" ({finding.detail})" if finding.detail else ""
    _say(f"{channel.id}: {_SAID[finding.outcome]}, asked by {finding.kind}{detail}")
    for one in finding.dead:
        _say(f"{one.id}: is to be repaired; an alert does that, or the page")
    return 0 if finding.outcome is ProbeOutcome.PASSED else 1


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the operator reads it
