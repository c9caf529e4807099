"""The page's data and actions as a JSON API, for scripts and other panels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, abort, request
from werkzeug.exceptions import HTTPException

from reconnect_hook.app import as_json, as_json_error
from reconnect_hook.auth import TokenAuth
from reconnect_hook.dashboard.channel_view import ChannelFilter, ChannelHealth, ChannelView
from reconnect_hook.dashboard.scan import create_link, pairing_answer, revoke_link, usable_name
from reconnect_hook.dashboard.snapshot import DashboardCache
from reconnect_hook.event_log import LoggedAttempt
from reconnect_hook.history import Attempt
from reconnect_hook.message_audit import LastAudit, MessageAuditor
from reconnect_hook.operator_actions import OperatorActions
from reconnect_hook.scan_links import HOURS, MOST_LINKS, LinkKind, ScanLink, TooManyLinksError
from zapwatch.alertmanager import AlertmanagerError
from zapwatch.channels import AmbiguousNameError, channel_key
from zapwatch.http import json_or_none

_MOST_HOURS = 24 * 365


class DashboardApi:
    """The API calls, one method each."""

    def __init__(self, auth: TokenAuth, board: DashboardCache) -> None:
        self._auth = auth
        self._board = board
        self._panels = board.panels

    def blueprint(self) -> Blueprint:
        """Return the routes. A channel id comes last in its path, since it may hold slashes."""
        routes = Blueprint("api", __name__, url_prefix="/api")
        add = routes.add_url_rule
        add("/channels", "channels", self._channels)
        add("/channels/<channel:channel>", "channel", self._channel)
        add("/attempts/<channel:channel>", "attempts", self._attempts)
        add("/log/<channel:channel>", "log", self._log)
        add("/reconnect/<channel:channel>", "reconnect", self._reconnect, methods=["POST"])
        add("/ask/<channel:channel>", "ask", self._ask, methods=["POST"])
        add("/audit/<channel:channel>", "audit", self._audit)
        add("/audit/<channel:channel>", "audit_now", self._audit_now, methods=["POST"])
        add("/missed/<channel:channel>", "missed", self._missed)
        add("/replay/<channel:channel>", "replay", self._replay, methods=["POST"])
        add("/pause/<channel:channel>", "pause", self._pause, methods=["POST"])
        add("/resume/<channel:channel>", "resume", self._resume, methods=["POST"])
        add("/forget/<channel:channel>", "forget", self._forget, methods=["POST"])
        add("/scan-links", "scan_links", self._scan_links)
        new = "/scan-links/<channel:channel>"
        add(new, "new_scan_link", self._new_scan_link, methods=["POST"])
        add("/scan-links/<link>", "end_scan_link", self._end_scan_link, methods=["DELETE"])
        pair = "/pairing-code/<channel:channel>"
        add(pair, "pairing_code", self._pairing_code, methods=["POST"])
        routes.before_request(self._check)
        routes.register_error_handler(HTTPException, _http_error)
        routes.register_error_handler(AmbiguousNameError, lambda error: _error(404, str(error)))
        return routes

    def _check(self) -> None:
        self._auth.check()
        self._board.settle_channel()

    def _channels(self) -> Response:
        snapshot = self._board.look()
        if not snapshot.number:
            abort(503)  # nothing has been read yet
        rows = ChannelFilter(gateway=request.args.get("gateway", "")).of(snapshot.rows.values())
        body = {
            "channels": [_channel(row) for row in rows],
            "troubles": list(dict.fromkeys(one.problem for one in snapshot.problems)),
            "gateways": [
                {
                    "gateway": name,
                    "troubles": [one.problem for one in snapshot.problems if one.gateway == name],
                }
                for name in self._panels.all
            ],
        }
        return as_json(200, body)

    def _channel(self, channel: str) -> Response:
        return as_json(200, _channel(self._board.known(channel)))

    def _attempts(self, channel: str) -> Response:
        attempts = self._panels.controller().history.of_channel(channel_key(channel))
        return as_json(200, {"attempts": [_attempt(one) for one in attempts]})

    def _log(self, channel: str) -> Response:
        logged = self._panels.controller().history.logged(channel_key(channel))
        return as_json(200, {"attempts": [_logged(one) for one in logged]})

    def _reconnect(self, channel: str) -> Response:
        """Queue a repair; for a channel that the gateway does not list, no call is made."""
        if not self._actions().reconnect(channel):
            return _error(409, "the channel's repairs are paused: resume them first")
        self._board.look(now=True)
        return as_json(202, {"accepted": True})

    def _ask(self, channel: str) -> Response:
        """Queue a probe."""
        known = self._board.known(channel)
        if not self._panels.of_request().can_ask(known.channel):
            return _error(409, "PROBE is off, or this gateway has no query: set up echoes")
        if not self._actions().probe_now(known.channel):
            return _error(409, "the channel's repairs are paused: resume them first")
        return as_json(202, {"accepted": True})

    def _audit(self, channel: str) -> Response:
        """Return the result of the channel's last audit."""
        key = channel_key(channel)
        last = self._auditor().repository.last(key).get(key)
        return as_json(200, {"audit": last and _without(last, "channel")})

    def _audit_now(self, channel: str) -> Response:
        """Queue an audit of the last day; it runs if the gateway lists the channel."""
        if not self._auditor().can_know:
            why = "this gateway lists no messages, or there is neither a message log nor events"
            return _error(409, why)
        self._auditor().repository.want_now(channel)
        return as_json(202, {"accepted": True})

    def _missed(self, channel: str) -> Response:
        """Return the messages missed in the last 30 days, the newest first."""
        missed = [asdict(one) for one in self._auditor().repository.missed(channel_key(channel))]
        for one in missed:
            one["chat_ends_in"] = one.pop("chat")
        return as_json(200, {"missed": missed})

    def _replay(self, channel: str) -> Response:
        """Queue a delivery of the channel's missed messages."""
        row, replayer = self._board.known(channel), self._panels.controller().replayer
        if replayer.why_not:
            return _error(409, replayer.why_not)
        replayer.want(row.channel, request.remote_addr)
        return as_json(202, {"accepted": True})

    def _auditor(self) -> MessageAuditor:
        return self._panels.controller().auditor

    def _pause(self, channel: str) -> Response:
        row = self._board.known(channel)
        hours = _body().get("hours", 0)
        is_number = isinstance(hours, int | float) and not isinstance(hours, bool)
        if hours is not None and not (is_number and 0 < hours <= _MOST_HOURS):
            words = f"hours must be a number above 0 and up to {_MOST_HOURS}, or null for no end"
            return _error(400, words)
        self._actions().pause(row.channel, None if hours is None else hours * 3600.0)
        return as_json(200, self._now(channel))

    def _resume(self, channel: str) -> Response:
        self._board.known(channel)
        self._actions().resume(channel)
        return as_json(200, self._now(channel))

    def _forget(self, channel: str) -> Response:
        """Mute the alert for a channel that was removed on purpose."""
        row = self._board.known(channel)
        if row.kind is not ChannelHealth.GONE:
            return _error(409, "no alert says that the channel has left the list")
        try:
            self._board.forget(row)
        except AlertmanagerError as error:
            return _error(502, str(error))
        self._board.look(now=True)
        return as_json(202, {"accepted": True})

    def _scan_links(self) -> Response:
        return as_json(
            200,
            {"links": [_scan_link(link) for link in self._panels.supervisor.scan_links.valid()]},
        )

    def _new_scan_link(self, channel: str) -> Response:
        row, body = self._board.known(channel), _body()
        hours, name = body.get("hours", 24), usable_name(body.get("name", ""))
        kind = body.get("kind", LinkKind.SCAN)
        if not isinstance(kind, str) or kind not in HOURS:
            return _error(400, f"kind must be one of {', '.join(HOURS)}")
        if isinstance(hours, bool) or hours not in HOURS[kind]:
            return _error(400, f"hours must be one of {', '.join(map(str, HOURS[kind]))}")
        if name is None:
            return _error(400, "name must be one line of 60 characters at most")
        try:
            link, address = create_link(self._panels, row.channel, name, int(hours), kind)
        except TooManyLinksError:
            return _error(409, f"the channel has {MOST_LINKS} valid links already: end one first")
        return as_json(201, {"url": address, **_scan_link(link)})

    def _end_scan_link(self, link: str) -> Response:
        if not revoke_link(self._panels, link):
            abort(404)
        return Response(status=204)

    def _pairing_code(self, channel: str) -> Response:
        row, panel = self._board.known(channel), self._panels.of_request()
        return pairing_answer(panel, row.channel, _body().get("phone"), shows_other=False)

    def _actions(self) -> OperatorActions:
        return self._panels.controller().actions

    def _now(self, channel: str) -> Mapping[str, object]:
        row = self._board.look(now=True).row(self._panels.of_request().name, channel)
        return _channel(row) if row else {}


def _error(status: int, words: str) -> Response:
    return as_json(status, {"error": words})


def _body() -> Mapping[str, Any]:
    body = json_or_none(request.get_data()) if request.is_json else None
    return body if isinstance(body, dict) else {}


def _scan_link(link: ScanLink) -> dict[str, object]:
    return {**asdict(link), "kind": link.kind}


def _channel(row: ChannelView) -> dict[str, object]:
    waiting, paused = row.waiting, row.paused
    return {
        "gateway": row.gateway,
        "channel": row.channel,
        "status": row.kind,
        "needs_somebody": row.needs_attention,
        "last_message": row.last_message,
        "silence_threshold_seconds": row.threshold,
        "consecutive_failures": row.failures if row.has_state else None,
        "repair": waiting
        and {
            "reason": waiting.reason,
            "accepted_at": waiting.accepted_at,
            "under_way": waiting.due_at is None,
            "due_at": waiting.due_at,
        },
        "paused": paused and {"until": paused.until},
        "probe": row.probed
        and {"kind": row.probed.kind, "outcome": row.probed.outcome, "at": row.probed.at},
        "last_attempt": row.last and _attempt(row.last),
    }


def _without(told: Attempt | LastAudit, *hidden: str) -> dict[str, object]:
    return {name: value for name, value in asdict(told).items() if name not in hidden}


def _attempt(attempt: Attempt) -> dict[str, object]:
    return _without(attempt, "id", "key", "channel")


def _logged(attempt: LoggedAttempt) -> dict[str, object]:
    return {
        "kind": attempt.kind,
        "outcome": attempt.outcome,
        "began_at": attempt.began_at,
        "ended_at": attempt.ended_at,
        "steps": [
            {"at": step.at, "step": step.kind, "words": step.words} for step in attempt.steps
        ],
    }


def _http_error(error: HTTPException) -> Response:
    response = as_json_error(error)
    if error.code == 401:
        # Not Basic: a browser would open its own password dialog.
        response.headers["WWW-Authenticate"] = 'Bearer realm="Zapwatch"'
    return response
