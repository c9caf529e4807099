"""How programs start and end, in processes of their own."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import pytest
import requests

from reconnect_hook.metrics import HookMetrics
from tests.support.hooks import SECRET, TOKEN, hook_settings
from tests.support.programs import Program, environment, run, run_here
from tests.support.raw_server import RawServer, silent
from tests.support.site import NOBODY
from tests.support.waiting import TIMEOUT, wait_until
from zapwatch import server

_SIGNALLED_IN = {
    "a finalizer": """
class Signalled:
    def __del__(self):
        signal.raise_signal(number)
        time.sleep(0)
made = Signalled()
del made
""",
    "a weak reference's callback": """
class Made: pass
def signalled(_):
    signal.raise_signal(number)
    time.sleep(0)
made = Made()
kept = weakref.ref(made, signalled)
del made
""",
    "its work": "signal.raise_signal(number)",
}


def _run(
    program: str, folder: Path, settings: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


@pytest.mark.parametrize(
    ("where", "name"), [*((where, "SIGTERM") for where in _SIGNALLED_IN), ("its work", "SIGINT")]
)
def test_a_signal_ends_it_wherever_it_comes(tmp_path: Path, where: str, name: str) -> None:
    program = (
        "import signal, time, weakref\n"
        "from zapwatch.server import end_on_signals, run\n"
        f"number = signal.{name}\n"
        "end_on_signals(3)\n"
        f"{_SIGNALLED_IN[where]}\n"
        "time.sleep(3600)\n"
    )
    done = _run(program, tmp_path)
    assert (done.returncode, done.stderr) == (3, "")


def test_signals_at_each_line_of_its_wait_end_it(tmp_path: Path) -> None:
    program = (
        "import runpy, signal, sys\n"
        "def signalled(_, event, __):\n"
        "    if event == 'line':\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "    return signalled\n"
        "def trace(frame, *_):\n"
        "    names = frame.f_back.f_code.co_name, frame.f_code.co_name\n"
        "    return signalled if names == ('_serve_loop', 'wait') else None\n"
        "sys.settrace(trace)\n"
        "runpy.run_module('exporter', run_name='__main__', alter_sys=True)\n"
    )
    settings = hook_settings(NOBODY, MESSAGE_LOG_URL="none", EXPORTER_LISTEN="127.0.0.1:0")
    done = _run(program, tmp_path, settings)
    assert done.returncode == 0, done.stderr


def test_hangups_in_quick_succession_do_not_stop_it(tmp_path: Path) -> None:
    settings = hook_settings(NOBODY, HOOK_LISTEN="127.0.0.1:0")
    with Program(tmp_path, "reconnect_hook", "serve", settings=settings) as hook:
        hook.get("/-/healthy")
        for _ in range(20_000):
            hook.send(signal.SIGHUP)
        assert hook.end() == 0


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "exporter", "explain", "loja"),
        ("-c", "from zapwatch.cli import main; main()", "notify"),
    ],
    ids=["explain", "notify"],
)
def test_ctrl_c_ends_a_command_without_a_traceback(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    with RawServer(silent) as server:
        settings = hook_settings(server.url, ALERTMANAGER_URL=server.url, MESSAGE_LOG_URL="none")
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment(settings),
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: server.requests, "a request")
        process.send_signal(signal.SIGINT)
        assert (process.communicate(timeout=TIMEOUT)[1], process.returncode) == ("", -signal.SIGINT)


@pytest.mark.parametrize(
    ("module", "arguments", "line"),
    [
        ("zapwatch.config.report", [], "config: --env-file: .env cannot be read"),
        (
            "zapwatch.setup.command",
            ["--yes", "--env-file", "x.env"],
            "init: --env-file: x.env cannot be read",
        ),
        (
            "exporter.__main__",
            ["explain", "loja", "--env-file", "/dev/null"],
            "the message log cannot be read: var/messages.sqlite3",
        ),
        (
            "reconnect_hook.__main__",
            ["check", "--env-file", "/dev/null"],
            "reconnect_hook: HOOK_LOG_FILE cannot be written: logs",
        ),
    ],
)
def test_a_folder_of_another_user_is_told_in_one_line(
    tmp_path: Path, module: str, arguments: list[str], line: str
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    program = (
        "import os\n"
        f"from {module} import main\n"
        "from zapwatch.server import run\n"
        "from reconnect_hook import check, commands\n"
        "os.chdir('theirs')\n"
        "os.chmod('.', 0)\n"
        "if os.geteuid() == 0:\n"
        "    os.seteuid(65534)\n"
        f"run(lambda: main({arguments}))\n"
    )
    events = {"MESSAGE_SOURCE": "events", "MESSAGES_TOKEN": "not-a-real-token"}
    settings = hook_settings(NOBODY, MESSAGE_LOG_URL="", **events)
    done = _run(program, tmp_path, settings if "/dev/null" in arguments else {})
    folder.chmod(0o700)
    assert done.returncode == (0 if "explain" in arguments else 2)
    assert "Traceback" not in done.stderr
    assert f"{line}: Permission denied" in done.stdout + done.stderr


_EXPORTER, _HOOK = ("exporter",), ("reconnect_hook", "serve")
_SETTINGS = hook_settings(NOBODY, EXPORTER_LISTEN="127.0.0.1:0")
_DATABASE = "mysql://user:not-a-real-password@127.0.0.1:1/state"


def _fails_with(folder: Path, program: tuple[str, ...], **settings: str) -> str:
    """Run a program, which must end with code 2 and one line; return what the line says."""
    done = run_here(folder, *program, settings=_SETTINGS | settings)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith(f"{program[0]}: ")
    assert done.stderr.count("\n") == 1
    for secret in (SECRET, TOKEN, "not-a-real-password"):
        assert secret not in done.stderr
    return done.stderr.removeprefix(f"{program[0]}: ")


@pytest.mark.parametrize(
    ("program", "name", "value"),
    [
        (_EXPORTER, "WPP_GATEWAY_BASE_URL", ""),
        (_EXPORTER, "MESSAGE_LOG_URL", ""),
        (_EXPORTER, "EXPORTER_LISTEN", "192.0.2.1:9861"),
        (_EXPORTER, "EXPORTER_LISTEN", "host.invalid:9861"),
        (_HOOK, "HOOK_TOKEN", ""),
        (_HOOK, "HOOK_TOKEN", "fifteen-letters"),
        (_HOOK, "HOOK_TOKEN", "abc" * 20),
        (_HOOK, "HOOK_LOG_FILE", "file/healthcheck.log"),
        (_HOOK, "HOOK_LOG_FILE", "folder"),
        (_HOOK, "HOOK_STATE_URL", "sqlite:///file/state.sqlite3"),
        (_HOOK, "HOOK_STATE_URL", "sqlite:///file"),
        (_HOOK, "HOOK_STATE_URL", "sqlite:///folder"),
        (_HOOK, "HOOK_STATE_URL", "sqlite://"),
        (_HOOK, "HOOK_STATE_URL", "sqlite:///:memory:"),
        (_HOOK, "HOOK_STATE_URL", _DATABASE),
        (_HOOK, "HOOK_STATE_URL", f"{_DATABASE}?nonsense=1"),
    ],
)
def test_a_wrong_or_missing_setting_is_named_in_one_line(
    tmp_path: Path, program: tuple[str, ...], name: str, value: str
) -> None:
    (tmp_path / "file").write_text("a regular file, and no database " * 100)
    (tmp_path / "folder").mkdir()
    line = _fails_with(tmp_path, program, **{name: value})
    assert line.startswith("DB_HOST" if name == "MESSAGE_LOG_URL" else name)


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("--config.check", {"WPP_GATEWAY_CA_FILE": "pipe"}),
        ("--config.check", {"MESSAGE_LOG_URL": "sqlite:///pipe"}),
        ("--config.check", {"WEB_CONFIG_FILE": "web.yml"}),
        (
            "explain loja",
            {
                "MESSAGE_LOG_URL": "sqlite:///log",
                "SILENCE_MODE": "adaptive",
                "SILENCE_STATE_FILE": "pipe",
            },
        ),
    ],
)
def test_a_pipe_in_place_of_a_file_is_not_waited_for(
    tmp_path: Path, command: str, settings: dict[str, str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: pipe, key_file: pipe}")
    done = run(tmp_path, "exporter", *command.split(), settings=_SETTINGS | settings)
    assert "it is a named pipe" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("program", "name"), [(_EXPORTER, "EXPORTER_LISTEN"), (_HOOK, "HOOK_LISTEN")]
)
def test_a_port_that_is_in_use_is_told_in_one_line(
    tmp_path: Path, program: tuple[str, ...], name: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = f"127.0.0.1:{listener.getsockname()[1]}"
        events = {"MESSAGE_SOURCE": "events", "MESSAGES_TOKEN": "not-a-real-token"}
        line = _fails_with(tmp_path, program, **{name: where}, **events)
    assert line.startswith(f"{name}: {where} is in use by another program; choose another")
    assert not list(tmp_path.rglob("*-wal")), "the state is closed"


@pytest.fixture(scope="module", params=[_EXPORTER, _HOOK], ids=["exporter", "hook"])
def hung_up(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """Run each program in turn, which gets a SIGHUP while it starts."""
    more = {"HOOK_EXTERNAL_URL": "https://example.com/zap", "EXPORTER_LISTEN": "127.0.0.1:0"}
    more |= {"MESSAGE_SOURCE": "events", "MESSAGES_TOKEN": TOKEN}
    settings = hook_settings(NOBODY, **more)
    folder = tmp_path_factory.mktemp("program")
    with Program(folder, *request.param, settings=settings) as program:
        status = Path(f"/proc/{program.process.pid}/status")

        def is_blocked() -> bool:
            blocked = status.read_text().partition("SigBlk:")[2].split()[0]
            return bool(int(blocked, 16) & 1 << signal.SIGHUP - 1)

        wait_until(is_blocked, "the first lines of the program")
        program.send(signal.SIGHUP)
        assert "settings were read again" not in program.stderr
        yield program


def _is_hook(program: Program) -> bool:
    return "serve" in str(program.process.args)


def test_a_hangup_while_it_starts_does_not_end_it(hung_up: Program) -> None:
    wait_until(lambda: "were read again" in hung_up.stderr, "the hangup's effect")
    assert hung_up.get("/-/healthy").status_code == 200
    shown = 'whatsapp_page_info{url="https://example.com/zap"} 1.0'
    assert (shown in hung_up.get("/metrics").text) == _is_hook(hung_up)
    unsafe = "unsafe: HOOK_TOKEN and MESSAGES_TOKEN are the same: give each its own"
    assert unsafe in hung_up.stderr


def test_no_body_is_awaited_without_the_token_and_guesses_are_limited(hung_up: Program) -> None:
    taken = "/alerts" if _is_hook(hung_up) else "/messages/wpp"

    def announce(path: str, **headers: str) -> int:
        """Send the headers of a request with a body of 10 MB, and return the status."""
        where = hung_up.url.rpartition("/")[2]
        with closing(http.client.HTTPConnection(where, timeout=TIMEOUT)) as connection:
            connection.putrequest("POST", path)
            for name, value in {"Content-Length": "10000000", **headers}.items():
                connection.putheader(name, value)
            connection.endheaders()
            return connection.getresponse().status

    guessed = [announce(path, Authorization="Bearer x") for path in (taken, "/metrics") * 3]
    assert guessed == [401] * 5 + [429]
    right = {"Authorization": f"Bearer {TOKEN}"}
    known = b'{"version": "4", "alerts": [], "event": "none", "sessionId": "loja"}'
    answer = requests.post(f"{hung_up.url}{taken}", known, headers=right, timeout=TIMEOUT)
    assert answer.status_code in {202, 204}
    assert announce(taken, Cookie="zapwatch=forged") == 401, "at once, without any token too"


def test_a_thread_that_dies_is_told_and_named(
    caplog: pytest.LogCaptureFixture, dead_threads: list[str]
) -> None:
    server.start_thread("well", lambda: None).join(TIMEOUT)
    assert dead_threads == []
    server.start_thread("silence", lambda: sys.exit(1 // 0)).join(TIMEOUT)
    assert dead_threads == ["silence"]
    assert "the thread silence has died" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    dead = HookMetrics().registry.get_sample_value("whatsapp_reconnect_hook_dead_threads")
    assert dead == 1


def test_another_fault_in_a_finalizer_is_still_told(tmp_path: Path) -> None:
    program = (
        "from zapwatch.server import end_on_signals\n"
        "end_on_signals()\n"
        "class Faulty:\n"
        "    def __del__(self): 1 / 0\n"
        "Faulty()\n"
    )
    done = _run(program, tmp_path)
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr


def test_the_http_clients_chatter_is_no_event(tmp_path: Path) -> None:
    program = (
        "import logging; from zapwatch.server import log_to_stderr; log_to_stderr('debug');"
        "logging.getLogger('urllib3.connectionpool').debug('GET /a-secret');"
        "logging.getLogger('other').warning('other')"
    )
    done = _run(program, tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert "level=warning logger=other msg=other" in done.stderr
