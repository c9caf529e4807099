"""Programs with several gateways: none waits for another, and SIGHUP changes which there are."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.alerts import alert, payload
from tests.support.gateways import Gateways
from tests.support.hooks import SECRET, TOKEN, log_lines, state
from tests.support.notify_socket import NotifySocket
from tests.support.programs import Fork, Program, run_here
from tests.support.waiting import TIMEOUT, wait_until
from zapwatch import __version__

_BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[Gateways]:
    with Gateways(tmp_path, "a", "b") as made:
        yield made


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[NotifySocket]:
    with NotifySocket(tmp_path / "notify") as made:
        yield made


def _reload(program: Program, systemd: NotifySocket) -> str:
    """Send SIGHUP, wait for the end of it, and return the line that tells of it."""
    before, ready = len(program.lines), systemd.told.count("READY=1")
    program.send(signal.SIGHUP)
    systemd.wait_for("READY=1", ready + 1)
    begun = [told for told in systemd.told if told.startswith("RELOADING=1\nMONOTONIC_USEC=")]
    assert len(begun) == ready, "each is told, after the first READY=1"
    [line] = [line for line in program.lines[before:] if " logger=settings " in line]
    return str(json.loads(line.partition(" msg=")[2]))


def _post(program: Program, *alerts: object) -> dict[str, int]:
    answer = requests.post(
        f"{program.url}/alerts", data=payload(*alerts), headers=_BEARER, timeout=TIMEOUT
    )
    assert answer.status_code == 202
    return dict(answer.json())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("exporter",), "whatsapp_exporter"),
        (("reconnect_hook", "serve"), "whatsapp_reconnect_hook"),
    ],
)
def test_a_program_shows_its_settings_and_reloads_them_over_http(
    gateways: Gateways, tmp_path: Path, arguments: tuple[str, ...], name: str
) -> None:
    with Fork(tmp_path, *arguments, settings=gateways.settings()) as program:
        url = f"{program.url}/-/reload"

        def reload() -> requests.Response:
            return requests.post(url, headers=_BEARER, timeout=TIMEOUT)

        def value(metric: str) -> float | None:
            return program.metrics().get(f"{name}_config_last_reload_{metric}")

        def shown() -> dict[str, str]:
            page = requests.get(f"{program.url}/-/settings", headers=_BEARER, timeout=TIMEOUT)
            return {row["name"]: row["value"] for row in page.json()["settings"]}

        if arguments[0] == "reconnect_hook":
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                asked = requests.post(url, headers=headers, timeout=TIMEOUT)
                read = requests.get(f"{program.url}/-/settings", headers=headers, timeout=TIMEOUT)
                assert (asked.status_code, read.status_code) == (401, 401)
            assert "settings" not in program.stderr
        accepted_at = value("success_timestamp_seconds")
        assert accepted_at is not None
        assert accepted_at > 1_700_000_000
        assert value("successful") == 1
        assert shown()["a: type"] == "wrapper"
        gateways.write("a", "a")
        refused = reload()
        assert refused.status_code == 500
        assert "two gateways are named a" in refused.text
        wait_until(lambda: value("successful") == 0, "the metric")
        assert value("success_timestamp_seconds") == accepted_at
        gateways.write("a")
        assert "b: type" in shown()
        assert reload().status_code == 200
        wait_until(lambda: value("successful") == 1, "the metric")
        assert "b: type" not in shown()
        assert requests.get(url, timeout=TIMEOUT).status_code == 405
        assert not any(secret in str(shown()) for secret in (SECRET, TOKEN))


@pytest.mark.parametrize(("host", "status"), [("0.0.0.0", 404), ("127.0.0.2", 200)])
def test_an_exporter_reloads_over_http_on_loopback_only(
    gateways: Gateways, tmp_path: Path, host: str, status: int
) -> None:
    settings = {**gateways.settings(), "EXPORTER_LISTEN": f"{host}:0"}
    with Fork(tmp_path, "exporter", settings=settings) as exporter:
        url = exporter.url.replace("0.0.0.0", "127.0.0.1")
        assert requests.post(f"{url}/-/reload", timeout=TIMEOUT).status_code == status
        assert requests.get(f"{url}/-/settings", timeout=TIMEOUT).status_code == status


# The exporter.


def _wait_for_polls(gateways: Gateways) -> None:
    gateways.of["b"].clear_requests()
    wait_until(lambda: len(gateways.of["b"].requests("list")) > 9, "polls of b")


def test_the_exporter_watches_all_and_one_that_hangs_holds_up_no_other(
    gateways: Gateways, tmp_path: Path
) -> None:
    with Fork(tmp_path, "exporter", settings=gateways.settings()) as exporter:
        gateways.of["a"].drop("loja")
        wait_until(lambda: exporter.get("/-/ready").status_code == 200, "both lists")
        wait_until(
            lambda: (
                exporter.metrics().all("whatsapp_channel_connected")
                == {("loja", "a"): 0.0, ("loja", "b"): 1.0}
            ),
            "the state of each",
        )
        assert exporter.metrics().all("whatsapp_exporter_build_info") == {(__version__,): 1}

        # Counted before it begins to hang: a call that hangs is the last for a long time.
        calls = len(gateways.of["a"].requests("list"))
        gateways.of["a"].fault("list", "hang")
        wait_until(lambda: len(gateways.of["a"].requests("list")) > calls, "a call that hangs")
        _wait_for_polls(gateways)
        calls = len(gateways.of["a"].requests("list"))
        _wait_for_polls(gateways)
        assert len(gateways.of["a"].requests("list")) == calls, "it hangs all the while"
        gateways.of["b"].drop("loja")
        wait_until(
            lambda: exporter.metrics().get("whatsapp_channel_connected", gateway="b") == 0,
            "a drop elsewhere",
        )

        gateways.of["b"].fault("list", "unauthorized")
        told = ' level=warning logger=exporter.b msg="channel list cannot be read: unauthorized'
        wait_until(lambda: told in exporter.stderr, "which gateway it is")
        assert SECRET not in exporter.stderr


def test_the_exporter_follows_the_file_on_sighup(
    gateways: Gateways, tmp_path: Path, systemd: NotifySocket
) -> None:
    env_file = tmp_path / "zapwatch.env"
    env_file.write_text("EXPORTER_POLL_SECONDS=0.1\n")
    settings = {**gateways.settings(**systemd.settings()), "EXPORTER_POLL_SECONDS": ""}
    gateways.write("a")
    options = ("exporter", "--env-file", str(env_file))
    with Fork(tmp_path, *options, settings=settings) as exporter:
        systemd.wait_for("READY=1")
        wait_until(lambda: exporter.get("/-/ready").status_code == 200, "the list")
        assert _reload(exporter, systemd) == "settings were read again: nothing has changed"

        gateways.write("a", "b", a_silent_hours="9")
        told = "settings were read again: added b; changed a (silent_hours)"
        assert _reload(exporter, systemd) == told
        threshold = "whatsapp_channel_silence_threshold_seconds"
        wait_until(
            lambda: (
                exporter.metrics().all(threshold)
                == {("loja", "a"): 9 * 3600, ("loja", "b"): 4 * 3600}
            ),
            "what has changed and what is new",
        )

        gateways.write("b", b_silent_hours="never")
        assert _reload(exporter, systemd) == (
            "the settings stay as they are, the new ones are refused: "
            f"{gateways.file}, gateway b: silent_hours must be a number, "
            "more than 0 and at most 8784; it is 'never'"
        )
        assert len(exporter.metrics().all(threshold)) == 2

        gateways.write("b")
        assert _reload(exporter, systemd) == "settings were read again: removed a"
        assert exporter.metrics().all("whatsapp_gateway_up") == {("b",): 1}
        _wait_for_polls(gateways)
        gateways.of["a"].clear_requests()
        _wait_for_polls(gateways)
        assert not gateways.of["a"].requests("list"), "nobody asks it any more"

        env_file.write_text("SILENT_HOURS=3\nEXPORTER_POLL_SECONDS=1\n")
        assert _reload(exporter, systemd) == (
            "settings were read again: changed b (silent_hours); "
            "only a restart changes EXPORTER_POLL_SECONDS"
        )


def test_a_changed_gateway_is_watched_as_before_until_its_new_settings_were_tried(
    gateways: Gateways, tmp_path: Path, systemd: NotifySocket
) -> None:
    with Fork(tmp_path, "exporter", settings=gateways.settings(**systemd.settings())) as exporter:
        systemd.wait_for("READY=1")
        wait_until(lambda: exporter.get("/-/ready").status_code == 200, "both lists")
        calls = len(gateways.of["a"].requests("list"))
        gateways.of["a"].fault("list", "hang")
        wait_until(lambda: len(gateways.of["a"].requests("list")) > calls, "a call that hangs")
        gateways.write("a", "b", a_timeout="20")
        assert _reload(exporter, systemd) == "settings were read again: changed a (timeout)"
        wait_until(lambda: len(gateways.of["a"].requests("list")) > calls + 1, "the first try")
        up = "whatsapp_channel_connected"
        assert exporter.metrics().get(up, gateway="a") == 1, "there is no gap"
        gateways.of["a"].clear_faults()
        gateways.of["a"].drop("loja")
        wait_until(lambda: exporter.metrics().get(up, gateway="a") == 0, "the new one")


def test_what_was_learned_is_explained_for_each_or_for_one(
    gateways: Gateways, tmp_path: Path
) -> None:
    def explain(*options: str) -> tuple[int, str]:
        done = run_here(tmp_path, "exporter", "explain", *options, settings=gateways.settings())
        return done.returncode, done.stdout + done.stderr

    code, text = explain("loja")
    assert code == 0
    assert text.startswith("a:\nloja: may be silent for 4h (fixed)\n")
    assert "\nb:\nloja: may be silent for 4h (fixed)\n" in text
    code, text = explain("loja", "--gateway", "b")
    assert (code, text.startswith("b:\n"), "\na:\n" in text) == (0, True, False)
    code, text = explain("loja", "--gateway", "c")
    assert (code, text) == (2, "exporter: --gateway: there is no gateway c, only a, b\n")
    assert explain("nobody") == (1, "exporter: nobody: no gateway lists such a channel\n")
    gateways.of["b"].put_channel("nova")
    code, text = explain("NOVA")
    assert (code, text.startswith("b:\nNOVA: may be silent for "), "a:\n" in text) == (
        0,
        True,
        False,
    )
    gateways.of["b"].put_channel("no va")
    code, text = explain("NoVa")
    assert (code, text.startswith("exporter: NoVa may be any of no va, nova")) == (1, True)


# The hook.


def test_a_gateway_that_hangs_holds_up_no_repair_of_another(
    gateways: Gateways, tmp_path: Path
) -> None:
    channels = [f"c{number}" for number in range(3)]
    for simulator in gateways.of.values():
        for channel in channels:
            simulator.put_channel(channel, reconnect_seconds=0)
            simulator.drop(channel)
    gateways.of["a"].fault("qr", "hang")
    settings = gateways.settings(RECONNECT_WORKERS="2", RECONNECT_VERIFY_SECONDS="30")
    with Fork(tmp_path, "reconnect_hook", "serve", settings=settings) as hook:
        of_a = [alert(channel, gateway="a") for channel in channels]
        of_b = [alert(channel, gateway="b") for channel in channels]
        assert _post(hook, *of_a)["accepted"] == 3
        wait_until(lambda: len(gateways.of["a"].requests("qr")) == 2, "busy workers")
        assert _post(hook, *of_b, alert("loja", gateway="c")) == {
            "accepted": 3,
            "coalesced": 0,
            "cooldown": 0,
            "ignored": 1,
        }
        attempts = "whatsapp_reconnect_attempts_total"
        wait_until(
            lambda: len(hook.metrics().all(attempts, gateway="b", outcome="reconnected")) == 3,
            "the repairs elsewhere",
        )
        now = hook.metrics()
        assert not now.all(attempts, gateway="a")
        assert now.get("whatsapp_reconnect_in_flight") == 2
        assert now.get("whatsapp_reconnect_queue_length") == 1
        assert len(gateways.of["a"].requests("qr")) == 2, "as many as there are workers"
    assert len([line for line in log_lines(tmp_path) if line.endswith(" gateway=b")]) == 3


def test_the_hook_follows_the_file_on_sighup_and_loses_nothing(
    gateways: Gateways, tmp_path: Path, systemd: NotifySocket
) -> None:
    settings = gateways.settings(**systemd.settings(), RECONNECT_VERIFY_SECONDS="30")
    with Fork(tmp_path, "reconnect_hook", "serve", settings=settings) as hook:
        systemd.wait_for("READY=1")
        for name in ("a", "b"):
            gateways.of[name].drop("loja")
        gateways.of["b"].fault("qr", "hang")
        assert _post(hook, alert(gateway="b"))["accepted"] == 1
        wait_until(lambda: gateways.of["b"].requests("qr"), "a repair that hangs")

        gateways.write("b", b_qr_timeout="45")
        line = _reload(hook, systemd)
        assert line == "settings were read again: removed a; changed b (qr_timeout)"
        wait_until(lambda: len(gateways.of["b"].requests("qr")) == 2, "it begins anew")
        assert _post(hook, alert(gateway="a"))["ignored"] == 1
        assert not hook.metrics().all(
            "whatsapp_gateway_request_duration_seconds_count", gateway="a"
        )
        gateways.of["b"].clear_faults()
        ended = "SELECT gateway FROM repair_log WHERE outcome = 'reconnected'"
        wait_until(lambda: state(tmp_path, ended) == [("b",)], "its end")
        assert len(log_lines(tmp_path)) == 1

        gateways.write("a", "a")
        assert _reload(hook, systemd).endswith(
            f"refused: {gateways.file}: two gateways are named a"
        )
        gateways.write("a", "b")
        assert _reload(hook, systemd).startswith("settings were read again: added a; changed b (")
        assert _post(hook, alert(gateway="a"))["accepted"] == 1
        wait_until(lambda: len(log_lines(tmp_path)) == 2, "a repair of the new one")
        assert " channel=loja reason=disconnected action=getQr " in log_lines(tmp_path)[1]


# The check.


def test_a_check_is_made_of_all_and_a_gateway_that_fails_keeps_no_other_from_it(
    gateways: Gateways, tmp_path: Path
) -> None:
    gateways.of["a"].fault("list", "http_500_json")
    gateways.of["b"].drop("loja")
    settings = gateways.settings(RECONNECT_VERIFY_SECONDS="30")
    seen = run_here(tmp_path, "reconnect_hook", "check", "--dry-run", settings=settings)
    assert seen.stdout == "b: loja: disconnected; would call getQr\n"
    assert seen.returncode == 1

    done = run_here(tmp_path, "reconnect_hook", "check", settings=settings)
    assert done.stdout == "b: loja: disconnected; reconnected\n"
    assert done.stderr.startswith("check: a: list: http: ")
    assert done.returncode == 1
    lines = log_lines(tmp_path)
    assert {line.rpartition(" ")[2] for line in lines} == {"gateway=a", "gateway=b"}

    gateways.of["a"].clear_faults()
    well = run_here(tmp_path, "reconnect_hook", "check", settings=settings)
    assert (well.stdout, well.stderr, well.returncode) == ("", "", 0)
