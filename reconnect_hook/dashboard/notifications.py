"""The page of notifications: whom Alertmanager tells, what failed, the heartbeat, a test."""

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

_SECONDS = 2.0  # until a source has to have answered
_TEST_SECONDS = 5.0
_KEPT_SECONDS = 15.0  # that what was read is shown, a failure too
_DAY = 86_400
_STEP = 300
_FAILED = f"sum by (integration) (increase(alertmanager_notifications_failed_total[{_STEP}s])) > 0"


@dataclass(frozen=True, slots=True)
class Receivers:
    """Whom Alertmanager tells."""

    ways: Mapping[str, int] | None
    """How many of each integration reach people; None where it is unknown."""

    @property
    def are_missing(self) -> bool:
        """Whether it is known that no message reaches a person."""
        return self.ways is not None and not self.ways


class NotificationsPage:
    """The views; each is one method."""

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
        """Make the routes, and let every page know what is missing."""
        routes.add_url_rule("/notify", "notify", self._page, methods=["GET"])
        routes.add_url_rule("/notify", "notify_test", self._test, methods=["POST"])
        routes.context_processor(
            lambda: {"receivers": self._look, "heartbeat_status": self._heartbeat_status}
        )

    def _look(self) -> Receivers:
        """Return what was read some seconds ago at most; only one request reads at a time."""
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
        """Return when each integration last failed within a day, the last one first."""
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
        """Return in a word how the heartbeat is: off, waiting, sent, refused or late."""
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
