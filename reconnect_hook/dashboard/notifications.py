"""The notifications page: Alertmanager's receivers, failures, the heartbeat, a test message."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from flask import Blueprint, redirect, render_template, request, url_for
from flask_babel import gettext as _
from werkzeug.wrappers import Response as AnyResponse

from reconnect_hook.app import LATE_SECONDS, Heartbeat
from reconnect_hook.dashboard.errors import error_page
from reconnect_hook.dashboard.prometheus import Prometheus, SourceError
from zapwatch.alertmanager import AlertmanagerApi, AlertmanagerError, ways_to_people
from zapwatch.clock import Clock

_SECONDS = 2.0  # timeout of Prometheus and Alertmanager
_TEST_SECONDS = 5.0
_KEPT_SECONDS = 15.0  # that a result is cached, a failure too
_DAY = 86_400
_STEP = 300
_FAILED = f"sum by (integration) (increase(alertmanager_notifications_failed_total[{_STEP}s])) > 0"


@dataclass(frozen=True, slots=True)
class Receivers:
    """Alertmanager's receivers."""

    ways: Mapping[str, int] | None
    """Receivers that reach people, by integration; None if unknown."""

    @property
    def are_missing(self) -> bool:
        """Whether certainly no message reaches a person."""
        return self.ways is not None and not self.ways


class NotificationsPage:
    """The notifications page, and the state behind the overview's banners."""

    def __init__(
        self,
        api: AlertmanagerApi,
        prometheus: Prometheus,
        heartbeat: Heartbeat,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._api = api
        self._prometheus = prometheus
        self._heartbeat = heartbeat
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._receivers = Receivers(None)
        self._read_at = float("-inf")

    def add_to(self, routes: Blueprint) -> None:
        """Register the routes, and the receivers' and heartbeat's state for all templates."""
        routes.add_url_rule("/notify", "notify", self._page, methods=["GET"])
        routes.add_url_rule("/notify", "notify_test", self._test, methods=["POST"])
        routes.context_processor(
            lambda: {"receivers": self._look, "heartbeat_status": self._heartbeat_status}
        )

    def _look(self) -> Receivers:
        """Return the cached receivers, 15 seconds old at most; one request refreshes at a time."""
        now = self._clock.monotonic()
        if now - self._read_at >= _KEPT_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._receivers = Receivers(ways_to_people(self._api.config(_SECONDS)))
            except AlertmanagerError:
                self._receivers = Receivers(None)
            finally:
                self._read_at = now
                self._lock.release()
        return self._receivers

    def _page(self) -> str:
        return render_template(
            "notifications.html",
            logged_in=True,
            was_sent="sent" in request.args,
            failures=self._failures(),
            heartbeat=self._heartbeat.state,
        )

    def _failures(self) -> list[tuple[str, float]] | None:
        """Return each integration's last failure within a day (Unix seconds), the latest first."""
        now = self._clock.time()
        try:
            found = self._prometheus.over_time(_FAILED, now - _DAY, now, _STEP, _SECONDS)
        except SourceError:
            return None
        last = {
            series.labels.get("integration", ""): max(at for at, _ in series.values)
            for series in found
            if series.values
        }
        return sorted(last.items(), key=lambda one: -one[1])

    def _heartbeat_status(self) -> str:
        """Return the heartbeat's status: off, waiting, sent, refused or late."""
        state = self._heartbeat.state
        if not state.is_set:
            return "off"
        if self._clock.time() - (state.arrived_at or state.since) > LATE_SECONDS:
            return "late"
        if state.arrived_at is None:
            return "waiting"
        return "refused" if state.error else "sent"

    def _test(self) -> AnyResponse:
        try:
            self._api.send_test(_TEST_SECONDS)
        except AlertmanagerError as error:
            return error_page(502, _("The test message was not sent"), str(error))
        return redirect(url_for("page.notify", sent="1"), 303)
