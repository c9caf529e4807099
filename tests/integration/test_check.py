"""``python -m reconnect_hook check``: what the cron script did, row by row, and what it did not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from demo.simulator.client import Simulator
from demo.simulator.knobs import MISSING
from demo.simulator.server import SimulatorServer
from reconnect_hook.__main__ import main
from reconnect_hook.check import Check
from reconnect_hook.recorder import Recorder, RowChanges
from tests.support.hooks import SECRET, hook_settings, log_lines, state
from tests.support.message_logs import WrittenLog
from tests.support.programs import Fork, Program, environment, run, run_here
from tests.support.waiting import wait_until
from zapwatch.config.readers import fingerprint

_HOUR = 3600


class Cron:
    """Runs checks in a working directory of their own."""

    def __init__(self, simulator: Simulator, log: WrittenLog, directory: Path) -> None:
        self.simulator = simulator
        self.log = log
        self.directory = directory
        self.settings = hook_settings(
            simulator.url,
            HOOK_TOKEN="",
            MESSAGE_LOG_URL=log.reader.render_as_string(),
            RECONNECT_COOLDOWN_SECONDS="300",
        )

    def channel(self, name: str, age: int | None = 60) -> None:
        """Let there be a connected channel whose last message is so old."""
        self.simulator.put_channel(name, reconnect_seconds=0)
        if age is not None:
            self.log.write(name, age_seconds=age)

    def check(self, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
        # What the terminal's encoding lacks is the business of who starts main().
        start = run if "PYTHONIOENCODING" in settings else run_here
        given = {**self.settings, **settings}
        done = start(self.directory, "reconnect_hook", "check", *options, settings=given)
        assert SECRET not in done.stdout + done.stderr + "".join(self.lines)
        return done

    def start(self, **settings: str) -> Program:
        return Fork(
            self.directory, "reconnect_hook", "check", settings={**self.settings, **settings}
        )

    @property
    def asked(self) -> list[str]:
        """The channels whose QR code was asked for."""
        return [call["channel"] for call in self.simulator.requests("qr")]

    @property
    def lines(self) -> list[str]:
        return log_lines(self.directory)


@pytest.fixture
def cron(sqlite_log: WrittenLog, tmp_path: Path) -> Iterator[Cron]:
    directory = tmp_path / "work"
    directory.mkdir()
    with SimulatorServer(SECRET) as server:
        yield Cron(Simulator(server.url), sqlite_log, directory)


def _files(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return all there is below a directory, with times and contents."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in directory.rglob("*")
    }


def test_nothing_is_printed_or_logged_when_all_is_well(cron: Cron) -> None:
    cron.channel("loja")
    cron.channel("Pixel12 Digital", age=4 * _HOUR - 600)
    done = cron.check()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert cron.lines == []
    assert cron.asked == []


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "DB_HOST is not set: name the message log's database"),
        ({"DB_HOST": "127.0.0.1"}, "DB_USER is not set: "),
    ],
)
def test_what_is_disconnected_is_repaired_without_the_logs_settings(
    cron: Cron, settings: dict[str, str], why: str
) -> None:
    cron.channel("loja")
    cron.channel("obra")
    cron.simulator.drop("obra")
    done = cron.check(MESSAGE_LOG_URL="", **settings)
    assert done.returncode == 1
    assert done.stdout == "obra: disconnected; reconnected\n"
    assert done.stderr.startswith(f"check: {why}")
    assert done.stderr.endswith("; silent channels cannot be detected\n")
    assert cron.asked == ["obra"]


def test_what_would_turn_or_hide_a_line_is_shown_as_an_escape(cron: Cron) -> None:
    for name in ("loja\u202eajol", "ob\u200bra"):
        cron.channel(name)
        cron.simulator.drop(name)
    done = cron.check("--verbose")
    assert "loja\\u202eajol: disconnected; reconnected\n" in done.stdout
    assert "ob\\u200bra: disconnected; reconnected\n" in done.stdout
    assert all(line.isprintable() for line in done.stdout.splitlines())


def test_an_audit_that_is_due_waits_for_a_hook_that_stays(cron: Cron) -> None:
    """A check ends in the middle of it, and what it had claimed would wait for 15 minutes."""
    cron.channel("loja")
    cron.check()
    due = "INSERT INTO message_audit (gateway, key, channel, due_at) VALUES ('wpp', 'loja', '', 1)"
    state(cron.directory, due)
    cron.simulator.drop("loja")
    assert cron.check().returncode == 0
    assert cron.asked == ["loja"]
    assert state(cron.directory, "SELECT due_at FROM message_audit")[0][0] == 1.0


def test_a_check_away_from_its_settings_says_that_its_state_is_new(cron: Cron) -> None:
    cron.channel("loja")
    home = cron.directory / "home"
    home.mkdir()
    (home / "some.env").write_text("SILENT_HOURS=4\n")
    for expected in (True, False):
        done = cron.check("--env-file", "home/some.env")
        assert (done.returncode, done.stdout) == (0, "")
        told = f"check: the state is new: {cron.directory}/var/reconnect-hook.sqlite3. "
        assert done.stderr.startswith(told) is expected
        assert done.stderr.count("\n") == expected


def test_a_name_that_the_terminal_cannot_show_does_not_end_the_check(cron: Cron) -> None:
    cron.channel("loja 🚀")
    cron.channel("obra")
    done = cron.check("--verbose", PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    shown = done.stdout.splitlines()[1:]
    assert [line.partition(":")[0] for line in shown] == ["loja \\U0001f680", "obra"]


@pytest.mark.parametrize(
    "command", ["reconnect_hook check --verbose", "zapwatch.gateways describe waha"]
)
def test_a_command_whose_reader_ends_ends_without_a_traceback(cron: Cron, command: str) -> None:
    cron.channel("loja")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=cron.directory,
        env=environment(cron.settings),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("closed", "code", "line"),
    [("1", 0, ""), ("2", 0, ""), ("full", 1, "the output is incomplete: No space left on device")],
)
def test_a_check_whose_output_is_lost_repairs_all_the_same(
    cron: Cron, closed: str, code: int, line: str
) -> None:
    cron.channel("loja")
    cron.simulator.drop("loja")
    to = ">/dev/full" if closed == "full" else f"{closed}>&-"
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -m reconnect_hook check --verbose {to}', sys.executable],
        cwd=cron.directory,
        env=environment(cron.settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.strip()) == (code, line)
    assert cron.asked == ["loja"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_told(cron: Cron, unbuffered: str) -> None:
    settings = {**cron.settings, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "zapwatch.gateways", "describe", "waha"],
            env=environment(settings),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "the output is incomplete: No space left on device\n",
    )


def test_verbose_shows_every_channel_and_logs_none(cron: Cron) -> None:
    cron.channel("loja", age=2 * _HOUR + 90)
    cron.channel("nova", age=None)
    cron.channel("Ob Ra")
    cron.simulator.drop("Ob Ra")
    done = cron.check("--verbose", IGNORE_CHANNELS="obra")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "2 channels listed",
        "Ob Ra: ignored by the settings",
        "loja: connected, last message 2 h 01 min ago, limit 4 h 00 min",
        "nova: connected, no message known",
    ]
    assert (cron.lines, cron.asked) == ([], [])


def test_verbose_shows_what_is_known_where_the_log_fails(cron: Cron) -> None:
    cron.channel("loja")
    cron.channel("nova")
    cron.simulator.put_channel("nova", status_text="initializing")
    cron.channel("obra")
    cron.simulator.put_channel("obra", status="disconnected")
    cron.log.run("DROP TABLE webhook_raw_logs")
    done = cron.check("--dry-run", "--verbose")
    assert done.returncode == 1
    assert done.stdout.splitlines()[:4] == [
        "3 channels listed",
        "loja: connected",
        "nova: disconnected, its status is initializing",
        "obra: disconnected",
    ]


def test_verbose_says_what_is_not_understood_of_the_rows(cron: Cron) -> None:
    cron.channel("loja")
    for payload in ({"session": "loja"}, {"instance": "loja"}):
        cron.log.write(payload=payload)
    assert "of 3 rows read, 2 messages name no channel\n" in cron.check("--verbose").stdout
    cron.log.write("loja", age_seconds=3 * _HOUR)
    told = cron.check("--verbose").stdout
    assert "name no channel" not in told
    assert "rows are dated" in told
    assert "back: has their writer another time zone than the database?" in told
    assert "loja: connected, last message 0 h 0" in told


def test_what_is_left_out_of_the_list_is_told(cron: Cron) -> None:
    for name in ("S\u00e3o", "Sa\u0303o", "odd"):
        cron.channel(name)
    cron.simulator.put_channel("odd", lists_id=False)
    twins = "left out of the list: 1 with an id that is there already"
    unusable = "left out of the list: 1 without a usable id"
    assert cron.check().stdout.splitlines() == [twins]
    assert {twins, unusable} <= set(cron.check("--dry-run", "--verbose").stdout.splitlines())


def test_two_sessions_whose_names_differ_in_case_and_blanks_are_two(cron: Cron) -> None:
    for name in ("Loja 1", "loja1", "Straße", "STRASSE"):
        cron.channel(name)
    cron.channel("Obra", age=5 * _HOUR)
    cron.channel("obra")
    cron.simulator.drop("loja1")
    done = cron.check("--verbose")
    told = set(done.stdout.splitlines())
    assert {"loja1: disconnected; reconnected", "Obra: silent; requested"} <= told
    assert "left out" not in done.stdout
    assert sorted(cron.asked) == ["Obra", "loja1"]
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("STRASSE", "obra"):
        cron.simulator.remove(name)
    cron.check()
    _age_the_missing(cron.directory, 300)
    told = set(cron.check(IGNORE_CHANNELS="obra").stdout.splitlines())
    assert [line.partition(":")[0] for line in told] == ["STRASSE"]


def test_a_channel_that_has_left_the_list_is_told_once(cron: Cron) -> None:
    for name in ("fica", "some", "Não Mais"):
        cron.channel(name)
    told = (
        "some: the gateway no longer lists it: create the session again under the same name, "
        "unless it was removed on purpose\n"
    )
    assert cron.check().stdout == ""
    for name in ("some", "Não Mais"):
        cron.simulator.remove(name)
    for _ in range(2):
        assert cron.check(IGNORE_CHANNELS="nãomais").stdout == "", "a gateway may be restarting"
    _age_the_missing(cron.directory, 300)
    assert cron.check("--dry-run").stdout == ""
    assert cron.check(IGNORE_CHANNELS="nãomais").stdout == told
    assert cron.check().stdout == ""
    cron.channel("some")
    assert cron.check().stdout == "", "it is listed again, and may leave again"
    cron.simulator.remove("some")
    cron.check()
    _age_the_missing(cron.directory, 300)
    assert cron.check().stdout == told


def _age_the_missing(directory: Path, seconds: float) -> None:
    """Let what is missing have been so for longer."""
    ((text,),) = state(directory, "SELECT channels FROM listed_channels")
    noted = {
        key: (name, since and since - seconds) for key, (name, since) in json.loads(text).items()
    }
    state(directory, "UPDATE listed_channels SET channels = :text", text=json.dumps(noted))


def test_a_channel_that_keeps_dropping_is_said_to_flap(cron: Cron) -> None:
    cron.channel("loja")
    for times in range(1, 5):
        cron.simulator.drop("loja")
        told = cron.check(RECONNECT_COOLDOWN_SECONDS="0").stdout
        end = ", 4 times in 6 hours: is the session open twice?" if times == 4 else ""
        assert told == f"loja: disconnected; reconnected{end}\n"
    state(cron.directory, "UPDATE repair_log SET finished_at = finished_at - :day", day=86400)
    cron.simulator.drop("loja")
    told = cron.check(RECONNECT_COOLDOWN_SECONDS="0").stdout
    assert told == "loja: disconnected; reconnected\n"


@pytest.mark.parametrize("hours", [8, None])
def test_a_check_ends_while_a_channel_is_paused(cron: Cron, hours: int | None) -> None:
    cron.channel("quiet", age=5 * _HOUR)
    cron.channel("obra")
    cron.check(SILENT_HOURS="24")
    until = time.time() + hours * _HOUR if hours else None
    paused = (
        "INSERT INTO channel (gateway, key, channel, paused, paused_until)"
        " VALUES ('wpp', 'quiet', 'quiet', 1, :until)"
    )
    state(cron.directory, paused, until=until)
    cron.simulator.drop("obra")
    done = cron.check()
    assert done.returncode == 0
    shown = (
        datetime.fromtimestamp(until).astimezone().strftime("until %Y-%m-%d %H:%M %Z")
        if until
        else "until a person resumes them"
    )
    assert done.stdout.splitlines() == [
        "obra: disconnected; reconnected",
        f"quiet: silent; its repairs are paused {shown}",
    ]
    assert cron.asked == ["obra"]


def test_a_disconnected_channel_is_repaired(cron: Cron) -> None:
    cron.channel("Pixel12 Digital")
    cron.channel("loja")
    cron.simulator.drop("Pixel12 Digital")
    done = cron.check()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Pixel12 Digital: disconnected; reconnected\n"
    assert cron.asked == ["Pixel12 Digital"]
    calls = [call["operation"] for call in cron.simulator.requests()]
    assert calls[:2] == ["list", "qr"], "the list at hand is the repair's first"
    (line,) = cron.lines
    assert (
        ' [healthcheck-sessions] channel="Pixel12 Digital" reason=disconnected action=getQr '
        "outcome=reconnected attempt=1 seconds="
    ) in line


def test_no_other_gateway_is_said_to_have_been_asked_for_a_qr_code(cron: Cron) -> None:
    with SimulatorServer(SECRET, api="evolution") as server:
        simulator = Simulator(server.url)
        simulator.put_channel("loja", reconnect_seconds=0)
        simulator.drop("loja")
        other = {"WPP_GATEWAY_TYPE": "evolution", "WPP_GATEWAY_BASE_URL": server.url}
        other |= {"MESSAGE_LOG_URL": "none", "RECONNECT_VERIFY_SECONDS": "30"}
        dry, wet = cron.check("--dry-run", **other).stdout, cron.check(**other).stdout
    assert dry == "loja: disconnected; would call connect, if Evolution has given it up\n"
    assert wet == "loja: disconnected; reconnected\n"
    (line,) = cron.lines
    assert " action=reconnect outcome=reconnected " in line


def test_what_cannot_be_repaired_is_told_by_each_run(
    cron: Cron, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()
    judge, is_to_look = Recorder.judge, Check._is_to_look

    def judge_late(*given: Any) -> RowChanges:
        asked.clear()
        assert asked.wait(60)
        return judge(*given)

    def ask(*given: Any) -> bool:
        asked.set()
        return is_to_look(*given)

    monkeypatch.setattr(Recorder, "judge", judge_late)
    monkeypatch.setattr(Check, "_is_to_look", ask)
    with SimulatorServer(SECRET, api="evolution") as server:
        Simulator(server.url).put_channel("oficial", integration="WHATSAPP-BUSINESS")
        cron.log.write("oficial", age_seconds=5 * _HOUR)
        other = {"WPP_GATEWAY_TYPE": "evolution", "WPP_GATEWAY_BASE_URL": server.url}
        for _ in range(2):
            done = cron.check(**other)
            assert done.returncode == 1
            assert done.stdout.startswith("oficial: silent; failed: this gateway has no session")
    assert [line.count("outcome=failed") for line in cron.lines] == [1, 1]
    assert state(cron.directory, "SELECT next_at FROM channel") == [(None,)]


def test_a_check_does_not_wait_for_a_gateway_that_has_failed_too_often(cron: Cron) -> None:
    names = [f"channel {number}" for number in range(9)]
    for name in names:
        cron.channel(name)
        cron.simulator.drop(name)
    cron.simulator.fault("qr", "html_504")
    assert cron.check().returncode == 1
    assert sorted(cron.asked) == sorted(set(cron.asked)), "each once at most"
    cron.simulator.clear_faults()
    asked = cron.asked
    done = cron.check()
    assert done.returncode == 0
    assert done.stdout.count("the gateway has failed too often, and is called again in ") == 9
    assert cron.asked == asked


def test_only_connected_means_connected(cron: Cron) -> None:
    well: list[object] = ["connected", " CONNECTED ", "Connected"]
    ill: list[object] = ["disconnected", "initializing", "unknown", "not connected"]
    ill += ["", MISSING, None, 1]
    for name, texts in (("well", well), ("ill", ill)):
        for number, text in enumerate(texts):
            cron.channel(f"{name} {number}")
            cron.simulator.put_channel(f"{name} {number}", status_text=text)
    done = cron.check()
    assert done.returncode == 0, "still disconnected, but accepted"
    starting = "ill 1"
    assert sorted(cron.asked) == sorted({f"ill {n}" for n in range(len(ill))} - {starting})
    assert done.stdout.count("still_disconnected\n") == len(ill) - 1
    waits = "it is starting; the next run repairs it if it still is"
    assert f"{starting}: disconnected; {waits}\n" in done.stdout


def test_a_session_that_has_been_starting_since_the_last_run_is_repaired(cron: Cron) -> None:
    cron.channel("loja")
    cron.simulator.put_channel("loja", status_text="initializing")
    for _ in range(2):
        assert cron.check().stdout.endswith(
            "it is starting; the next run repairs it if it still is\n"
        )
    assert cron.asked == []
    state(cron.directory, "UPDATE channel SET starting_since = starting_since - 120")
    assert cron.check().stdout == "loja: disconnected; still_disconnected\n"
    assert cron.asked == ["loja"]


@pytest.mark.parametrize(
    ("options", "settings", "asked"),
    [
        ([], {}, ["quiet"]),
        (["--silent-hours", "6"], {}, []),
        (["--silent-hours", "0.5"], {}, ["busy", "quiet"]),
        ([], {"SILENT_HOURS": "6"}, []),
        (["--silent-hours", "6"], {"SILENT_HOURS": "1"}, []),
        (["--silent-hours", "6"], {"SILENT_HOURS_OVERRIDES": "BUSY=0.5"}, ["busy"]),
        (["--silent-hours", "0.5"], {"SILENT_HOURS_OVERRIDES": "quiet=72"}, ["busy"]),
        ([], {"MESSAGE_LOG_URL": "none"}, []),
    ],
)
def test_a_channel_is_silent_after_so_many_hours(
    cron: Cron, options: list[str], settings: dict[str, str], asked: list[str]
) -> None:
    cron.channel("busy", age=_HOUR)
    cron.channel("quiet", age=5 * _HOUR)
    done = cron.check(*options, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(cron.asked) == asked
    # Each is told when it ends.
    told = sorted(done.stdout.splitlines())
    assert told == [f"{channel}: silent; requested" for channel in asked]
    assert len(cron.lines) == len(asked)


def test_a_channel_that_was_never_heard_has_its_silent_hours_first(cron: Cron) -> None:
    cron.channel("nova", age=None)
    for _ in range(2):
        done = cron.check()
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert cron.asked == []
    assert cron.lines == []
    earlier = "UPDATE channel SET unheard_since = unheard_since - :seconds"
    state(cron.directory, earlier, seconds=4 * _HOUR - 600)
    assert cron.check().stdout == ""
    state(cron.directory, earlier, seconds=1200)
    assert cron.check().stdout == "nova: never_heard; requested\n"
    assert cron.asked == ["nova"]
    assert "reason=never_heard action=getQr outcome=requested" in cron.lines[0]


def test_a_dry_run_changes_nothing_anywhere(cron: Cron) -> None:
    cron.channel("loja")
    cron.channel("quiet", age=5 * _HOUR)
    cron.channel("nova", age=None)
    cron.simulator.drop("loja")
    for _ in range(2):
        before = _files(cron.directory.parent)
        done = cron.check("--dry-run", "--verbose")
        assert (done.returncode, done.stderr) == (0, "")
        assert "loja: disconnected; would call getQr\n" in done.stdout
        assert "quiet: silent; would call getQr\n" in done.stdout
        assert "nova: connected, no message known\n" in done.stdout
        assert _files(cron.directory.parent) == before
        assert cron.asked == []
        # Once more with a state and a log that are there.
        cron.check(WPP_GATEWAY_SECRET="wrong")
    assert len(cron.lines) == 2


def test_a_dry_run_without_a_list_writes_no_log_either(cron: Cron) -> None:
    cron.simulator.fault("list", "html_504")
    done = cron.check("--dry-run")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert list(cron.directory.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("empty_list", "invalid"),
        ("wrong_shape_nested", "invalid"),
        ("html_504", "html"),
        ("hang", "timeout"),
    ],
)
def test_without_a_list_nothing_is_done_and_everybody_is_told(
    cron: Cron, fault: str, reason: str
) -> None:
    cron.channel("loja")
    cron.simulator.drop("loja")
    cron.simulator.fault("list", fault)
    done = cron.check(WPP_GATEWAY_TIMEOUT="0.5" if fault == "hang" else "30")
    # It would open the closed database again.
    assert "reconciler" not in {thread.name for thread in threading.enumerate()}
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"check: list: {reason}: .*; no channel could be checked\n", done.stderr)
    (line,) = cron.lines
    assert f' action=list outcome=failed detail="list: {reason}: ' in line
    assert cron.asked == []


def test_verbose_explains_a_failing_list(cron: Cron) -> None:
    cron.simulator.fault("list", "unauthorized")
    done = cron.check("--verbose")
    assert done.returncode == 1
    port = cron.simulator.url.rpartition(":")[2]
    explained = done.stdout.splitlines()
    assert explained[0] == f"URL: {cron.simulator.url} (port {port})"
    assert explained[1] == f"secret: {fingerprint(SECRET)}"
    assert explained[2].startswith("came back: HTTP 401, wrong secret?")
    assert explained[3].startswith("most likely: the secret is wrong")
    assert cron.simulator.requests("list")[0]["request_id"] in explained[4]


def test_verbose_asks_after_a_port_that_is_missing(cron: Cron) -> None:
    done = cron.check("--verbose", WPP_GATEWAY_BASE_URL="https://127.0.0.1")
    assert done.returncode == 1
    assert "(no port, so 443: is :8443 missing?)" in done.stdout


def test_without_the_database_disconnected_channels_are_still_repaired(cron: Cron) -> None:
    cron.channel("loja")
    cron.channel("quiet", age=5 * _HOUR)
    cron.simulator.drop("loja")
    cron.log.run("DROP TABLE webhook_raw_logs")
    done = cron.check()
    assert done.returncode == 1
    assert done.stdout == "loja: disconnected; reconnected\n"
    assert done.stderr == (
        "check: no such table: webhook_raw_logs: if there is no message log, set "
        "MESSAGE_LOG_URL=none; silent channels cannot be detected\n"
    )
    assert cron.asked == ["loja"]
    assert 'action=read_log outcome=failed detail="no such table' in cron.lines[0]
    assert "channel=loja" in cron.lines[1]


def test_a_channel_is_left_alone_within_the_cooldown(cron: Cron) -> None:
    cron.channel("loja")
    cron.simulator.put_channel("loja", session="dead", status="disconnected")
    assert cron.check().stdout == "loja: disconnected; still_disconnected\n"
    done = cron.check()
    assert (done.returncode, done.stderr) == (0, "")
    waits = "its last repair ended 0 h 00 min ago, the next one may begin in 5 min"
    assert done.stdout == f"loja: disconnected; {waits}\n"
    assert cron.asked == ["loja"]
    assert len(cron.lines) == 1
    # After a second one it doubles.
    earlier = "UPDATE channel SET called_at = called_at - 200, attempts = 2"
    state(cron.directory, earlier)
    assert cron.check().stdout.endswith("ended 0 h 03 min ago, the next one may begin in 7 min\n")
    assert cron.check(RECONNECT_COOLDOWN_SECONDS="0").stdout.endswith("still_disconnected\n")
    assert cron.asked == ["loja"] * 2
    assert "attempt=3" in cron.lines[1]


def test_a_qr_code_that_waits_is_told_but_not_shown(cron: Cron) -> None:
    cron.channel("loja")
    cron.simulator.unpair("loja")
    done = cron.check("--verbose")
    assert done.returncode == 0
    assert done.stdout.endswith("loja: disconnected; qr_required\n")
    assert "iVBOR" not in done.stdout + done.stderr + "".join(cron.lines)


def test_a_repair_that_fails_is_exit_code_1(cron: Cron) -> None:
    cron.channel("loja")
    cron.channel("Pixel12 Digital")
    for channel in ("loja", "Pixel12 Digital"):
        cron.simulator.drop(channel)
    cron.simulator.fault("qr", "html_504", channel="loja")
    done = cron.check()
    assert done.returncode == 1
    connected, failed = sorted(done.stdout.splitlines())
    assert connected == "Pixel12 Digital: disconnected; reconnected"
    assert failed.startswith("loja: disconnected; failed: qr: html: HTTP 504")
    assert done.stderr == "", "each line once"
    assert len(cron.lines) == 2


@pytest.mark.parametrize(
    "options",
    [
        *(f"--silent-hours {value}" for value in ("0", "-1", "nan", "inf", "four", "1_0")),
        *("--silent 1", "--silent-hours", "--quiet", "now"),
    ],
)
def test_wrong_usage_is_exit_code_2(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", *options.split()])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: ")


def test_wrong_settings_are_exit_code_2_before_anything_is_called(cron: Cron) -> None:
    (cron.directory / "file").write_text("a regular file")
    for name, value in {
        "WPP_GATEWAY_BASE_URL": "",
        "HOOK_STATE_URL": "sqlite:///file/state.sqlite3",
        "HOOK_LOG_FILE": "file/log",
    }.items():
        done = cron.check(**{name: value})
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"reconnect_hook: {name} ")
        assert done.stderr.count("\n") == 1
    assert cron.simulator.requests() == []


def test_a_state_that_breaks_on_the_way_is_exit_code_1(cron: Cron) -> None:
    cron.channel("loja")
    cron.check()
    state(cron.directory, "ALTER TABLE channel RENAME COLUMN cause TO reason")
    cron.simulator.drop("loja")
    done = cron.check()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("check: HOOK_STATE_URL: ")
    assert done.stderr.count("\n") == 1


def test_two_checks_at_once_make_one_call(cron: Cron) -> None:
    cron.channel("loja")
    cron.simulator.drop("loja")
    cron.simulator.fault("qr", "hang")
    patient = {"WPP_GATEWAY_QR_TIMEOUT": "3600"}
    with cron.start(**patient) as first, cron.start(**patient) as second:
        # A list for each check, and one ten seconds after the call.
        wait_until(lambda: len(cron.simulator.requests("list")) >= 3 and cron.asked, "the call")
        cron.simulator.clear_faults()
        codes = {program.wait() for program in (first, second)}
    assert codes == {0}
    assert cron.asked == ["loja"]
    assert len(cron.lines) == 1


def test_a_check_that_is_cut_short_says_so_and_gives_its_repair_back(cron: Cron) -> None:
    cron.channel("loja")
    cron.simulator.drop("loja")
    cron.simulator.fault("qr", "hang", times=1)
    with cron.start(WPP_GATEWAY_QR_TIMEOUT="3600") as program:
        wait_until(lambda: cron.asked, "the call")
        assert program.end(signal.SIGTERM) == 1
        assert program.stderr == ""
    assert state(cron.directory, "SELECT holder FROM gateway") == [(None,)]
    assert state(cron.directory, "SELECT outcome FROM repair_log") == []
    assert cron.lines == []
    assert cron.check().stdout == "loja: disconnected; reconnected\n"
    assert len(cron.lines) == 1
